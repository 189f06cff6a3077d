//! The size of a text as SMS: its encoding, and the number of segments.
//!
//! Segments of 140 bytes hold 160 septets of GSM-7 or 70 units of UTF-16. A text of several segments has a header of
//! six bytes in each, which leaves 153 and 67. The encodings are those of 3GPP TS 23.038, the headers those of
//! TS 23.040. The results are those of Twilio's own calculator,
//! <https://github.com/TwilioDevEd/message-segment-calculator>.

use unicode_segmentation::UnicodeSegmentation;

/// The encoding of an SMS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// 7 bits for each character, 14 for those of the extension table.
    Gsm7,
    /// 16 bits for each character, 32 for those outside the Basic Multilingual Plane.
    Ucs2,
}

impl Encoding {
    /// The name that Twilio uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gsm7 => "GSM-7",
            Self::Ucs2 => "UCS-2",
        }
    }

    /// Units that a single segment can hold, and that each of several segments can hold.
    fn capacity(self) -> (usize, usize) {
        match self {
            Self::Gsm7 => (160, 153),
            Self::Ucs2 => (70, 67),
        }
    }
}

/// The size of a text as SMS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// The encoding.
    pub encoding: Encoding,
    /// Septets of GSM-7, or units of UTF-16.
    pub units: usize,
    /// The number of segments; 0 for an empty text.
    pub segments: usize,
    /// Units that each of these segments can hold: 160 or 153, 70 or 67.
    pub capacity: usize,
    /// Units that are left in the last segment.
    pub left: usize,
}

impl Size {
    /// Measures a text. With Smart Encoding, Twilio replaces characters that look like one of GSM-7, but only if the
    /// whole text becomes GSM-7:
    /// <https://www.twilio.com/blog/copilot-just-got-even-smarter-announcing-smart-encoding-html>.
    ///
    /// ```
    /// use protocol::segment::Size;
    ///
    /// // The curly apostrophe needs UCS-2, unless Twilio replaces it.
    /// let text = format!("It’s {}", "x".repeat(100));
    /// assert_eq!(Size::of(&text, false).segments, 2);
    /// assert_eq!(Size::of(&text, true).segments, 1);
    /// ```
    pub fn of(text: &str, has_smart_encoding: bool) -> Self {
        let septets = |letter| match septets(letter) {
            None if has_smart_encoding => replacement(letter),
            septets => septets,
        };
        if text.chars().all(|letter| septets(letter).is_some()) {
            let pieces = text.chars().filter_map(septets);
            Self::divide(
                Encoding::Gsm7,
                pieces.flat_map(|(count, size)| std::iter::repeat_n(size, count)),
            )
        } else {
            Self::divide(Encoding::Ucs2, whole_characters(text))
        }
    }

    /// Fills segments with pieces, given by their units; a piece is never split across two segments.
    fn divide(encoding: Encoding, pieces: impl Iterator<Item = usize> + Clone) -> Self {
        let (alone, each) = encoding.capacity();
        let units = pieces.clone().sum();
        if units <= alone {
            return Self {
                encoding,
                units,
                segments: usize::from(units > 0),
                capacity: alone,
                left: alone - units,
            };
        }
        let (segments, last) = pieces.fold((1, 0), |(segments, filled), piece| {
            match filled + piece <= each {
                true => (segments, filled + piece),
                false => (segments + 1, piece),
            }
        });
        Self {
            encoding,
            units,
            segments,
            capacity: each,
            left: each - last,
        }
    }
}

/// The UTF-16 units of each grapheme cluster: Twilio's calculator keeps a letter with its accents, and joined emoji, in
/// one segment. A cluster longer than a segment is split between its code points, and so is CR LF.
fn whole_characters(text: &str) -> impl Iterator<Item = usize> + Clone {
    let (_, each) = Encoding::Ucs2.capacity();
    text.graphemes(true).flat_map(move |cluster| {
        let units = cluster.encode_utf16().count();
        let is_whole = units <= each && cluster != "\r\n";
        let letters = if is_whole { "" } else { cluster };
        is_whole
            .then_some(units)
            .into_iter()
            .chain(letters.chars().map(char::len_utf16))
    })
}

/// The code of a character in GSM-7: how many pieces, and the septets of each. None if it has no code.
fn septets(letter: char) -> Option<(usize, usize)> {
    match letter {
        // The extension table: an escape stands before each.
        '\u{c}' | '[' | '\\' | ']' | '^' | '{' | '|' | '}' | '~' | '€' => Some((1, 2)),
        '\n' | '\r' | ' '..='_' | 'a'..='z' => Some((1, 1)),
        '£' | '¥' | '¤' | '§' | '¡' | '¿' => Some((1, 1)),
        'è' | 'é' | 'ù' | 'ì' | 'ò' | 'à' | 'Ç' | 'É' | 'Ñ' | 'ñ' => Some((1, 1)),
        'Ø' | 'ø' | 'Å' | 'å' | 'Æ' | 'æ' | 'ß' => Some((1, 1)),
        'Ä' | 'ä' | 'Ö' | 'ö' | 'Ü' | 'ü' => Some((1, 1)),
        'Δ' | 'Φ' | 'Γ' | 'Λ' | 'Ω' | 'Π' | 'Ψ' | 'Σ' | 'Θ' | 'Ξ' => Some((1, 1)),
        _ => None,
    }
}

/// The same as [`septets`] for the characters that Smart Encoding replaces this one with.
fn replacement(letter: char) -> Option<(usize, usize)> {
    match letter {
        // Invisible characters, which are left out.
        '\0' | '\u{3}'..='\u{4}' | '\u{10}'..='\u{14}' | '\u{17}' | '\u{19}' => Some((0, 1)),
        '\u{200b}'..='\u{200c}' | '\u{2060}' | '\u{feff}' => Some((0, 1)),
        // A tab becomes seven blanks, other blanks become one or two.
        '\t' => Some((7, 1)),
        '\u{2001}' | '\u{2028}'..='\u{2029}' => Some((1, 1)),
        '\u{80}' | '\u{8d}' | '\u{90}' | '\u{9b}' | '\u{9f}'..='\u{a0}' => Some((2, 1)),
        '\u{2000}' | '\u{2002}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' => Some((2, 1)),
        // Fractions, the ellipsis and two exclamation marks in one.
        '¼'..='¾' | '…' => Some((3, 1)),
        '‼' => Some((2, 1)),
        // Brackets, braces, bars, backslashes, carets and tildes become characters of the extension table.
        '\u{ff3b}'..='\u{ff3e}' | '\u{ff5b}'..='\u{ff5e}' => Some((1, 2)),
        '\u{2774}'..='\u{2775}' | '\u{fe5b}'..='\u{fe5c}' => Some((1, 2)),
        '\u{20d2}'..='\u{20d3}' | '\u{2223}' | '\u{239c}' | '\u{239f}' => Some((1, 2)),
        '\u{23b8}'..='\u{23b9}' | '\u{23d0}' => Some((1, 2)),
        '\u{20e5}' | '\u{29f5}' | '\u{29f9}' | '\u{fe68}' => Some((1, 2)),
        '\u{2c6}' | '\u{302}' | '\u{1dcd}' => Some((1, 2)),
        '\u{2dc}' | '\u{2f7}' | '\u{303}' | '\u{330}' | '\u{334}' | '\u{223c}' => Some((1, 2)),
        // Quotation marks, accents and primes.
        '`' | '´' | '«' | '»' | '\u{2018}'..='\u{201f}' | '\u{2039}'..='\u{203a}' => {
            Some((1, 1))
        }
        '\u{2b9}'..='\u{2bd}' | '\u{2c8}' | '\u{2ca}'..='\u{2cb}' | '\u{2ee}' => Some((1, 1)),
        '\u{275b}'..='\u{275e}' | '\u{301d}'..='\u{301e}' | '\u{313}'..='\u{314}' => Some((1, 1)),
        // Dashes, lines and bullets.
        '\u{2010}' | '\u{2013}'..='\u{2015}' | '\u{2022}' | '\u{2043}' => Some((1, 1)),
        '\u{2017}' | '\u{332}' | '\u{23bc}'..='\u{23bd}' => Some((1, 1)),
        // Slashes, other signs of arithmetic, colons, marks below and above.
        '÷' | '\u{2044}' | '\u{2215}' | '\u{29f8}' | '\u{337}'..='\u{338}' => Some((1, 1)),
        '\u{2d6}' | '\u{347}' | '\u{326}' | '\u{a78a}' => Some((1, 1)),
        '\u{2d0}' | '\u{2f8}' | '\u{2982}' | '\u{a789}' | '\u{204f}' | '\u{1c3}' => Some((1, 1)),
        // Parentheses and asterisks.
        '\u{2768}'..='\u{276b}' | '\u{27ee}'..='\u{27ef}' | '\u{2985}'..='\u{2986}' => Some((1, 1)),
        '\u{204e}' | '\u{2217}' | '\u{229b}' | '\u{29c6}' | '\u{2722}'..='\u{2725}' => Some((1, 1)),
        '\u{2731}'..='\u{2733}' | '\u{273a}'..='\u{273d}' | '\u{2743}' => Some((1, 1)),
        '\u{2749}'..='\u{274b}' => Some((1, 1)),
        // Small capitals.
        '\u{262}' | '\u{26a}' | '\u{274}' | '\u{280}' | '\u{28f}' | '\u{299}' | '\u{29c}' => {
            Some((1, 1))
        }
        '\u{29f}' | '\u{1d00}' | '\u{1d04}'..='\u{1d05}' | '\u{1d07}' => Some((1, 1)),
        '\u{1d0a}'..='\u{1d0b}' | '\u{1d0d}' | '\u{1d0f}' | '\u{1d18}' => Some((1, 1)),
        '\u{1d1b}'..='\u{1d1c}' | '\u{1d20}'..='\u{1d22}' | '\u{a730}'..='\u{a731}' => Some((1, 1)),
        // Punctuation of East Asia, in its vertical, small, full-width and half-width forms, and full-width letters.
        '\u{3001}'..='\u{3002}' | '\u{ff61}' | '\u{ff64}' => Some((1, 1)),
        '\u{fe10}'..='\u{fe11}' | '\u{fe13}'..='\u{fe16}' | '\u{fe50}'..='\u{fe52}' => Some((1, 1)),
        '\u{fe54}' | '\u{fe56}'..='\u{fe57}' | '\u{fe59}'..='\u{fe5a}' => Some((1, 1)),
        '\u{fe5f}'..='\u{fe66}' | '\u{fe69}'..='\u{fe6b}' => Some((1, 1)),
        '\u{ff01}'..='\u{ff3a}' | '\u{ff3f}' => Some((1, 1)),
        _ => None,
    }
}

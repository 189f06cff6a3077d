//! The keyword of an incoming message, without the characters that keyboards and networks add around it.

/// The text as it is compared with keywords: in lower case, without invisible characters, without quotes around it and
/// stops at its end, and with single blanks. Empty if nothing is left.
///
/// The text must be in normalization form NFKC, in which full-width letters and the various blanks are the usual ones.
pub fn bare_word(text: &str) -> String {
    let mut word = String::with_capacity(text.len());
    for letter in text.chars().filter(|letter| !is_invisible(*letter)) {
        match letter {
            // iOS replaces two hyphens by a dash, which counts as one hyphen.
            '\u{2010}'..='\u{2015}' | '\u{2212}' => word.push('-'),
            letter if letter.is_whitespace() => {
                if !word.ends_with(' ') {
                    word.push(' ');
                }
            }
            // Unlike lower() of PostgreSQL, the same in every locale.
            letter => word.extend(letter.to_lowercase()),
        }
    }
    word.trim_start_matches(|letter| is_quote(letter) || letter == '¡')
        .trim_end_matches(|letter| is_quote(letter) || ['.', '!', '。'].contains(&letter))
        .to_owned()
}

/// Blanks are removed like quotes, because they may stand inside them: « stop ».
fn is_quote(letter: char) -> bool {
    matches!(
        letter,
        ' ' | '"' | '\'' | '`' | '«' | '»' | '‹' | '›' | '′' | '″'
            | '\u{2018}'..='\u{201f}' | '\u{300c}'..='\u{300f}' | '\u{301d}'..='\u{301f}'
    )
}

/// Letters without width: joiners, marks of direction, variation selectors, soft hyphens, fillers, controls.
fn is_invisible(letter: char) -> bool {
    (letter.is_control() && !letter.is_whitespace())
        || matches!(
            letter,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{feff}'
                | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
                | '\u{fe00}'..='\u{fe0f}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}'
        )
}

#[cfg(test)]
mod tests {
    use super::bare_word;

    #[test]
    fn decorations_are_taken_off() {
        for text in [
            "STOP",
            " stop ",
            "Stop\n",
            "\u{200b}STOP",
            "ST\u{ad}OP",
            "STOP\u{fe0f}",
            "\u{feff}stop",
            "\u{202a}Stop\u{202c}",
            "\u{2068}STOP\u{2069}",
            "\"STOP\"",
            "'stop'",
            "“Stop”",
            "„Stop“",
            "«stop»",
            "« stop »",
            "‚stop‘",
            "Stop.",
            "STOP!",
            "Stop!!!",
            "“STOP.”",
            "“STOP”.",
            "¡Stop!",
            "STOP . ",
            "\u{1}stop",
            "「stop」",
            "stop。",
            "S\u{200d}T\u{200c}O\u{2060}P",
        ] {
            assert_eq!(bare_word(text), "stop", "{text:?}");
        }
    }

    #[test]
    fn blanks_and_hyphens_are_of_one_kind() {
        for text in [
            "opt  out",
            "OPT\tOUT",
            "opt\u{2003}\u{2003}out",
            "opt \n out.",
        ] {
            assert_eq!(bare_word(text), "opt out", "{text:?}");
        }
        for text in ["opt-out", "Opt\u{2011}Out", "OPT–OUT", "opt—out"] {
            assert_eq!(bare_word(text), "opt-out", "{text:?}");
        }
    }

    #[test]
    fn other_words_and_stops_within_stay() {
        for (text, word) in [
            ("STOP 12345", "stop 12345"),
            ("Stop. Thank you", "stop. thank you"),
            ("stop?", "stop?"),
            (".stop", ".stop"),
            ("don't stop", "don't stop"),
            ("ARRÊT", "arrêt"),
            ("", ""),
            ("\u{200b}", ""),
            ("\"\"", ""),
            ("...", ""),
        ] {
            assert_eq!(bare_word(text), word, "{text:?}");
        }
    }
}

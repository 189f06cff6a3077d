"""Prints crates/protocol/src/zone/table.rs: the time zones of country codes and of NANP area codes.

The facts are those of the package phonenumbers, which has them from libphonenumber (Apache-2.0):
    pip install phonenumbers && python3 crates/protocol/src/zone/table.py > crates/protocol/src/zone/table.rs
"""
from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, __version__
from phonenumbers.tzdata import TIMEZONE_DATA

zones = {str(code): set(TIMEZONE_DATA[str(code)]) for code in COUNTRY_CODE_TO_REGION_CODE if str(code) in TIMEZONE_DATA}
for prefix, names in TIMEZONE_DATA.items():
    # An area code has the zones of all its exchanges.
    if prefix[0] == "1" and len(prefix) > 1:
        zones.setdefault(prefix[:4], set()).update(names)
lines = {}
for prefix, names in zones.items():
    lines.setdefault(" ".join(sorted(names)), []).append(prefix)

print("//! Printed by `table.py`, from phonenumbers %s." % __version__)
print("\n/// Prefixes of numbers, and the zones that a number with one of them may be in.")
print("// One line a set of zones, whatever its length.\n#[rustfmt::skip]\npub(super) const TABLE: &[(&str, &str)] = &[")
for names, prefixes in sorted(lines.items(), key=lambda line: sorted(line[1])):
    print('    ("%s", "%s"),' % (" ".join(sorted(prefixes)), names))
print("];")

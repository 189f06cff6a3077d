//! The tests that tests/README.md names for each promise exist.

use std::fs;

use crate::server::environment::checkout;

#[test]
fn each_test_that_the_index_names_exists() {
    let tests = checkout().join("tests");
    let readme = fs::read_to_string(tests.join("README.md")).unwrap();
    let (_, promises) = readme.split_once("\n## Promises\n").unwrap();
    let names = promises.split('`').skip(1).step_by(2);
    let names: Vec<&str> = names
        .filter(|name| name.contains('/') && !name.contains(' '))
        .collect();
    assert!(names.len() > 50, "{names:?}");
    let exists = |name: &&str| {
        let (folder, name) = name.split_once('/').unwrap();
        match (folder, name.split_once("::")) {
            ("regress", None) => tests.join(format!("regress/sql/{name}.sql")).exists(),
            ("isolation", None) => tests.join(format!("isolation/specs/{name}.spec")).exists(),
            (_, Some((module, test))) => {
                let file = tests.join(format!("end_to_end/tests/{folder}/{module}.rs"));
                let text = fs::read_to_string(file).unwrap_or_default();
                text.contains(&format!("#[test]\nfn {test}() {{"))
            }
            _ => false,
        }
    };
    let missing: Vec<_> = names.iter().filter(|name| !exists(name)).collect();
    assert!(missing.is_empty(), "there is no test {missing:?}");
}

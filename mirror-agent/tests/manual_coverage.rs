//! `docs/manual-coverage.md` names every message of the table, and only tests that exist.

use mirror_agent::messages::table::{self, Raised};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn page() -> String {
    fs::read_to_string(root().join("docs/manual-coverage.md")).expect("docs/manual-coverage.md")
}

/// The cells of each row of its tables.
fn rows(page: &str) -> Vec<Vec<&str>> {
    let rows = page.lines().filter(|l| l.starts_with("| "));
    rows.map(|l| l.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Whether `test` (a file, or a file and a function in it) is there.
fn exists(test: &str) -> bool {
    let (file, function) = test.split_once("::").map_or((test, None), |(f, n)| (f, Some(n)));
    let Ok(text) = fs::read_to_string(root().join(file)) else { return false };
    function.is_none_or(|name| text.contains(&format!("fn {name}(")))
}

fn is_test(word: &str) -> bool {
    word.contains(".rs::") || word.starts_with("tests/")
}

#[test]
fn every_message_has_its_row_with_a_test_or_a_reason() {
    let page = page();
    let rows = rows(&page);
    for message in table::all() {
        let name = format!("`{}`", message.name());
        let mut of = rows.iter().filter(|r| r[0] == name);
        let row = of.next().unwrap_or_else(|| panic!("{name} has no row"));
        assert!(of.next().is_none(), "{name} has two rows");
        let tested = row.iter().any(|cell| quoted(cell).any(is_test));
        match message.raised {
            Raised::Here => assert!(tested, "{name} is given here, but no test is named"),
            Raised::NotYet => assert!(row.contains(&"missing"), "{name} is not given yet: {row:?}"),
            Raised::Never(_) => assert!(row.contains(&"out of scope"), "{name}: {row:?}"),
        }
    }
}

#[test]
fn every_test_that_is_named_exists() {
    let page = page();
    let named: BTreeSet<&str> = quoted(&page).filter(|word| is_test(word)).collect();
    assert!(named.len() > 40, "the page names its tests: {named:?}");
    let absent: Vec<_> = named.into_iter().filter(|test| !exists(test)).collect();
    assert!(absent.is_empty(), "no such test: {absent:?}");
}

#[test]
fn every_section_of_the_manual_from_6_to_12_has_its_row() {
    let page = page();
    let rows = rows(&page);
    let count =
        |chapter: u32, sections: u32| (1..=sections).map(move |n| format!("§{chapter}.{n}"));
    let two_deep = [(6, 7), (9, 2), (10, 9), (11, 10), (12, 5)];
    let mut sections: Vec<String> = two_deep.iter().flat_map(|(c, n)| count(*c, *n)).collect();
    sections.extend(["§7".to_owned(), "§8".to_owned()]);
    sections.extend((1..=11).map(|n| format!("§11.10.{n}")));
    sections.extend((1..=7).map(|n| format!("§12.4.{n}")));
    sections.extend((1..=9).map(|n| format!("§12.5.{n}")));
    for section in sections {
        assert!(rows.iter().any(|r| r[0] == section), "{section} has no row");
    }
}

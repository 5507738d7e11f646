//! Finding a message by its name, by a line of a log, or by part of a text.

use super::{MODULES, Message, all, row};

/// The messages that `what` means, best first: by name (`mdadmn-5`, `mdadmn:5`, `mdadmn 5`, or
/// a module alone), else by a line of a log, else by a part of the text. Several have one text.
#[must_use]
pub fn find(what: &str) -> Vec<&'static Message> {
    let what = what.trim();
    if what.is_empty() {
        return Vec::new();
    }
    if let Some(found) = by_name(what).or_else(|| by_event(what)) {
        return found;
    }
    let whole: Vec<_> = all().filter(|m| filled_in(m.text, body(what))).collect();
    if !whole.is_empty() {
        return whole;
    }
    let part = what.to_lowercase();
    all().filter(|m| m.text.to_lowercase().contains(&part)).collect()
}

fn by_name(what: &str) -> Option<Vec<&'static Message>> {
    if MODULES.contains(&what) {
        return Some(all().filter(|m| m.module == what).collect());
    }
    let (module, id) = what.split_once([':', '-', ' '])?;
    if !MODULES.contains(&module) {
        return None;
    }
    Some(row(module, id.trim().parse().ok()?).into_iter().collect())
}

/// `<type: mdadmn><event: 5>`, wherever it stands in the line.
fn by_event(line: &str) -> Option<Vec<&'static Message>> {
    let between = |from: &str| Some(line.split_once(from)?.1.split_once('>')?.0.trim());
    let found = row(between("<type:")?, between("<event:")?.parse().ok()?)?;
    Some(vec![found])
}

/// What follows the head of a log line.
fn body(line: &str) -> &str {
    line.split_once("<type: liscal>").map_or(line, |(_, text)| text).trim()
}

/// Whether `line` is `text` with something in place of each `%1`, `%2`, ...
#[must_use]
pub fn filled_in(text: &str, line: &str) -> bool {
    let mut pieces = text.split('%').enumerate().map(|(n, piece)| {
        // All but the first begin with the argument's digit.
        if n == 0 { piece } else { piece.trim_start_matches(|c: char| c.is_ascii_digit()) }
    });
    let first = pieces.next().unwrap_or("");
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let pieces: Vec<&str> = pieces.collect();
    let Some((last, inner)) = pieces.split_last() else { return rest.is_empty() };
    for piece in inner {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::{filled_in, find};

    fn names(what: &str) -> Vec<String> {
        find(what).iter().map(|m| m.name()).collect()
    }

    #[test]
    fn a_message_is_found_by_its_name() {
        for name in ["mdadmn-5", "mdadmn:5", "mdadmn 5", " mdadmn-5 "] {
            assert_eq!(names(name), ["mdadmn-5"], "{name}");
        }
        assert_eq!(names("md-81"), ["md-81"]);
        assert!(names("mdadmn-999").is_empty());
        assert_eq!(names("mdnw").len(), 6);
    }

    #[test]
    fn a_message_is_found_by_the_line_of_a_log() {
        let line = "2026/01/02 03:04:05 CLUSTERPRO: <type: mdadmn><event: 6> Building of switch mirror disk has finished successfully.(Device: /dev/NMP1)";
        assert_eq!(names(line), ["mdadmn-6"]);
        let line = "clpmdagent[7]: CLUSTERPRO: <type: liscal> NMP1 receiving failed(the other server is silent).";
        assert_eq!(names(line), ["liscal-43"]);
        assert_eq!(names("Local mirror disk is abnormal. (md1)"), ["mdw-63"]);
        assert_eq!(names("Command timeout(mount -t ext4 /dev/NMP1, timeout=120)"), ["md-83"]);
    }

    #[test]
    fn a_message_is_found_by_a_part_of_its_text() {
        assert_eq!(names("FSCK HAS BEEN"), ["mdadmn-2"]);
        assert!(names("need to start mirror agent").len() == 3, "one text in three modules");
        assert!(names("").is_empty() && names("no such text").is_empty());
    }

    #[test]
    fn arguments_stand_for_anything_between() {
        assert!(filled_in("a%1b%2c", "axbyc") && filled_in("a%1b%2c", "abc"));
        assert!(!filled_in("a%1b%2c", "axb") && !filled_in("a%1", "b") && !filled_in("a", "ab"));
        assert!(filled_in("%1 x", "y x") && filled_in("(%1)", "(%1)"));
    }
}

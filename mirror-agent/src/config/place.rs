//! Where in the file a mistake is.

use std::fmt;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The way from the root of the file to a table or key.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Spot(Vec<Step>);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Step {
    Key(String),
    Nth(usize),
}

impl Spot {
    /// The key `key` of the root.
    pub(super) fn root(key: &str) -> Self {
        Self::default().key(key)
    }

    /// The key `key` of this table.
    pub(super) fn key(&self, key: &str) -> Self {
        self.then(Step::Key(key.to_owned()))
    }

    /// The table number `index`, from 0, of this array.
    pub(super) fn nth(&self, index: usize) -> Self {
        self.then(Step::Nth(index))
    }

    fn then(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    /// The line in `text` of each, from 1: that of the key, or, if it is missing, that of the table
    /// in which it is missing. `None` if not even that is there, or the text is no TOML.
    pub(super) fn lines(spots: &[Option<Self>], text: &str) -> Vec<Option<usize>> {
        let Ok(root) = DeTable::parse(text) else { return vec![None; spots.len()] };
        spots.iter().map(|s| s.as_ref()?.line(root.get_ref(), text)).collect()
    }

    fn line(&self, root: &DeTable<'_>, text: &str) -> Option<usize> {
        let mut here = Here::Table(root);
        let mut at = None;
        for step in &self.0 {
            let Some((start, next)) = here.go(step) else { break };
            at = Some(start);
            here = next;
        }
        line_of(text, at?)
    }
}

/// The line of a byte of `text`, from 1.
pub(super) fn line_of(text: &str, at: usize) -> Option<usize> {
    Some(text.get(..at)?.matches('\n').count() + 1)
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if n == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Nth(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// The place that was reached.
enum Here<'a> {
    Table(&'a DeTable<'a>),
    Value(&'a DeValue<'a>),
}

impl<'a> Here<'a> {
    /// One step on: the byte at which the thing begins, and the thing.
    fn go(&self, step: &Step) -> Option<(usize, Here<'a>)> {
        match (step, self) {
            (Step::Key(key), Here::Table(table)) => named(table, key),
            (Step::Key(key), Here::Value(DeValue::Table(table))) => named(table, key),
            (Step::Nth(n), Here::Value(DeValue::Array(array))) => {
                let element = array.get(*n)?;
                Some((element.span().start, Here::Value(element.get_ref())))
            }
            _ => None,
        }
    }
}

fn named<'a>(table: &'a DeTable<'a>, key: &str) -> Option<(usize, Here<'a>)> {
    let (name, value): (&Spanned<_>, &Spanned<DeValue<'_>>) = table.get_key_value(key)?;
    Some((name.span().start, Here::Value(value.get_ref())))
}

#[cfg(test)]
mod tests {
    use super::Spot;

    const TEXT: &str = "\
[agent]
port = 1

[[mirror]]
name = \"md1\"

[[mirror]]
name = '''md
2'''
fs = \"xfs\"
[mirror.on.b]
data_partition = \"/x\"
";

    fn line(spot: &Spot, text: &str) -> Option<usize> {
        Spot::lines(&[Some(spot.clone())], text)[0]
    }

    #[test]
    fn a_key_is_found_in_its_own_table() {
        let mirror = |n| Spot::root("mirror").nth(n);
        assert_eq!(mirror(1).key("on").key("b").to_string(), "mirror[1].on.b");
        assert_eq!(line(&Spot::root("agent").key("port"), TEXT), Some(2));
        assert_eq!(line(&mirror(0).key("name"), TEXT), Some(5));
        assert_eq!(line(&mirror(1).key("name"), TEXT), Some(8));
        assert_eq!(line(&mirror(1).key("fs"), TEXT), Some(10));
        assert_eq!(line(&mirror(1).key("on").key("b").key("data_partition"), TEXT), Some(12));
    }

    #[test]
    fn a_missing_key_is_missing_in_its_table() {
        assert_eq!(line(&Spot::root("agent").key("none"), TEXT), Some(1));
        assert_eq!(line(&Spot::root("mirror").nth(1).key("none"), TEXT), Some(7));
        assert_eq!(line(&Spot::root("server"), TEXT), None);
        assert_eq!(line(&Spot::root("agent"), "[agent"), None);
    }
}

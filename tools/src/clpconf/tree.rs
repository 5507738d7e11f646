//! Looking things up in the tree.

use roxmltree::Node;

/// The first element at `a/b/c` below `node`.
pub(super) fn path<'a, 'i>(node: Node<'a, 'i>, path: &str) -> Option<Node<'a, 'i>> {
    path.split('/').try_fold(node, |n, tag| n.children().find(|c| c.has_tag_name(tag)))
}

/// The text of an element, without white space around it; `None` if there is none.
pub(super) fn text<'a>(node: Node<'a, '_>) -> Option<&'a str> {
    node.text().map(str::trim).filter(|t| !t.is_empty())
}

pub(super) fn text_at<'a>(node: Node<'a, '_>, at: &str) -> Option<&'a str> {
    path(node, at).and_then(text)
}

pub(super) fn number_at(node: Node<'_, '_>, at: &str) -> Option<u64> {
    text_at(node, at)?.parse().ok()
}

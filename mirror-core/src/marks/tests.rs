use super::*;

const DEVICE: Id16 = Id16([3; 16]);

#[test]
fn a_mark_counts_when_its_write_has_ended() {
    let mut marks = Marks::blank(100, DEVICE);
    marks.set(3..5);
    assert!(!marks.is_marked(3) && marks.has_pending_sets());
    let write = marks.next_write().expect("something to set");
    assert!(!marks.is_marked(3));
    marks.write_done(write.block, true);
    assert!(marks.all_marked(3..5) && marks.idle());
}

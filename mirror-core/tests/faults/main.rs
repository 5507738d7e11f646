//! One mirror with requests under way when something goes wrong.

mod rig;

use rig::Rig;

/// An application that always has a read under way must not keep the servers apart.
#[test]
fn reads_under_way_do_not_hold_up_an_agreement() {
    let mut rig = Rig::active_alone();
    rig.read(0);
    assert_eq!(rig.data.len(), 1);
    rig.connect();
    assert!(rig.card().is_some(), "the card waits for a read");
}

#[test]
fn a_write_under_way_holds_up_an_agreement() {
    let mut rig = Rig::active_alone();
    rig.write(0);
    assert_eq!(rig.data.len(), 1);
    rig.connect();
    assert!(rig.card().is_none(), "the card would change");
    rig.data_ends(Ok(None));
    assert!(rig.card().is_some());
}

//! Exact bytes. If one of these fails, the wire has changed: that needs a new version, not new
//! bytes here. The handshake's first 16 bytes may never change at all.

use super::{acceptor, bytes_of, dialler, ends_of, frame, full_card, pair, pair_of, write_frame};
use crate::wire::codec::encode;
use crate::wire::header::Kind;
use crate::wire::{Message, Security};

fn hex(bytes: &[u8]) -> Vec<String> {
    let line = |chunk: &[u8]| chunk.iter().map(|b| format!("{b:02x}")).collect();
    bytes.chunks(16).map(line).collect()
}

fn same(bytes: &[u8], pinned: &[&str]) {
    assert_eq!(hex(bytes), pinned);
}

#[test]
fn opening_messages() {
    let (mut a, mut b) = (dialler(), acceptor());
    let hello = a.take_output();
    b.feed(&hello).unwrap();
    let reply = b.take_output();
    a.feed(&reply).unwrap();
    let proof = a.take_output();
    same(&hello, HELLO);
    same(&reply, REPLY);
    same(&proof, PROOF);
}

#[test]
fn data_frame_with_its_tag() {
    let (mut a, _) = pair();
    let bytes = bytes_of(&a.encode(&write_frame(0x0102, 16)).unwrap());
    same(&bytes, WRITE);
}

#[test]
fn opening_messages_and_a_frame_when_encrypted() {
    let (mut a, mut b) = ends_of(Security::Encrypted);
    let hello = a.take_output();
    b.feed(&hello).unwrap();
    let reply = b.take_output();
    a.feed(&reply).unwrap();
    same(&hello[16..], ENCRYPTED_HELLO);
    same(&reply[16..], ENCRYPTED_REPLY);
    same(&a.take_output()[32..], ENCRYPTED_PROOF);
    let (mut a, _) = pair_of(Security::Encrypted);
    same(&bytes_of(&a.encode(&write_frame(0x0102, 16)).unwrap()), ENCRYPTED_WRITE);
}

#[test]
fn card() {
    let card = Message::Card(Box::new(full_card()));
    same(&bytes_of(&encode(&frame(card)).unwrap()), CARD);
}

/// The numbers in the document are the numbers in the program.
#[test]
fn document_lists_every_message() {
    let document = include_str!("../../../../docs/protocol.md");
    for kind in Kind::ALL {
        let row = format!("| {} | `{kind:?}` |", kind.number());
        assert!(document.contains(&row), "{row}");
    }
}

const HELLO: &[&str] = &[
    "6d646d6972726f720100010001000000",
    "00010300000000000000000000000000",
    "6d643100000000000000000000000000",
    "00000000000000000000000000000000",
    "11111111111111111111111111111111",
    "11111111111111111111111111111111",
];
const REPLY: &[&str] = &[
    "6d646d6972726f720100010002000100",
    "01010000000000000000000000000000",
    "22222222222222222222222222222222",
    "22222222222222222222222222222222",
    "ef7a244444bd3cb2d7865810e61db2c9",
    "719f0c30692bf9e80fb87e6a9bb2db07",
];
const PROOF: &[&str] = &[
    "6d646d6972726f720100010003000100",
    "00000000000000000000000000000000",
    "e9179df7d7eaafb54d0d8adf3841dea6",
    "48c3a8de95781a36f35f7b0ac0153602",
];
const WRITE: &[&str] = &[
    "b5011081100000000900000000000000",
    "04000000000000000201000000000000",
    "001000000000000054e6bd68ae3ccd1c",
    "504558c4924fec77bfaded1452bbce8e",
    "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a",
];
const CARD: &[&str] = &[
    "b5010180ca0000000900000000000000",
    "04000000000000000000000000000000",
    "00000000000000006bc582b268d77afd",
    "00000000000000000000000000000000",
    "011db90000000000020000001000004d",
    "00000005000000000000000404040404",
    "04040404040404040404040303030303",
    "03030303030303030303030100000000",
    "0001000000020000a100000000000000",
    "b1000000000000000000000000000000",
    "02c100000000000000c2000000000000",
    "0001d100000000000000000000000000",
    "00000600000000000000080000000000",
    "00000200000000000000030000000000",
    "00000505050505050505050505050505",
    "0505e100000000000000ffffffffffff",
    "ffff00f1536500000000",
];
const ENCRYPTED_HELLO: &[&str] = &[
    "00020300000000000000000000000000",
    "6d643100000000000000000000000000",
    "00000000000000000000000000000000",
    "7b4e909bbe7ffe44c465a220037d608e",
    "e35897d31ef972f07f74892cb0f73f13",
];
const ENCRYPTED_REPLY: &[&str] = &[
    "01020000000000000000000000000000",
    "0faa684ed28867b97f4a6a2dee5df8ce",
    "974e76b7018e3f22a1c4cf2678570f20",
    "3136123f9eb700e473920fdc6217a320",
    "249d1f6fde0b01b5b2e986bce60f4f06",
];
const ENCRYPTED_PROOF: &[&str] =
    &["24724f3fbe9af1949a1be378a9dbf32b", "a5b330b53dda8e1e0f99fb894c0e9260"];
const ENCRYPTED_WRITE: &[&str] = &[
    "7fe422f45722469082e22e9e920402e5",
    "624f3a983f26815501b0c316020a5068",
    "0c1acc9df6ead7e5702cb566bd468d31",
    "e0182b127122f621e8bc15bc930262c7",
    "e936cdc73dba13ad54098c241787ff32",
    "d61db926f8c2b735cf3eb2237ea586f9",
];

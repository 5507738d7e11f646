//! A product's configuration in its form, what becomes of it, and what nobody's should do to us.

use super::{Converted, DEPTH_MAX, FILE_MAX, convert};
use mirror_agent::config::{Config, FsckTiming};
use mirror_core::both_active::BothActive;
use mirror_core::units::Side;
use proptest::prelude::*;
use std::path::Path;

/// Two servers, two mirror disks, and what else such a file has; only what differs from the defaults.
const SAMPLE: &str = r#"<?xml version="1.0" encoding="EUC-JP"?>
<root>
  <cluster><name>c</name><comment/></cluster>
  <all><charset>EUC-JP</charset><serveros>linux</serveros></all>
  <monitor>
    <types name="mdw"/>
    <mdw name="mdw1"><parameters><object>md1</object></parameters></mdw>
    <userw name="userw"/>
  </monitor>
  <server name="second"><priority>1</priority>
    <device id="0"><type>lan</type><info>192.168.0.2</info></device>
    <device id="400"><type>mdc</type><info>10.0.0.2</info><mdc><info>10.0.0.2</info></mdc></device>
    <device id="401"><type>mdc</type><info>10.0.1.2</info></device>
  </server>
  <server name="first"><priority>0</priority>
    <device id="0"><type>lan</type><info>192.168.0.1</info></device>
    <device id="400"><type>mdc</type><info>10.0.0.1</info><mdc><info>10.0.0.1</info></mdc></device>
    <device id="401"><type>mdc</type><info>10.0.1.1</info></device>
    <survive>1</survive>
  </server>
  <heartbeat><types name="lankhb"/></heartbeat>
  <networkpartition/>
  <group name="failover1"><resource name="md@md1"/></group>
  <resource>
    <types name="md"/>
    <md name="md1">
      <parameters>
        <mddriver><hbport>29031</hbport><syncmode>0</syncmode><compress>0</compress></mddriver>
        <netdev id="1"><priority>1</priority><device>401</device></netdev>
        <netdev id="0"><priority>0</priority><device>400</device></netdev>
        <nmppath>/dev/NMP1</nmppath>
        <mount><point>/mnt/md1</point><retry>5</retry><action>0</action></mount>
        <umount><action>none</action></umount>
        <fsck><timing>1</timing><timeout>9999</timeout></fsck>
        <diskdev><dppath>/dev/sdb2</dppath><cppath>/dev/sdb1</cppath></diskdev>
        <fs>ext4</fs>
        <mkfs>1</mkfs>
      </parameters>
      <server name="second"><parameters><diskdev><dppath>/dev/sdc2</dppath></diskdev></parameters></server>
      <act><timeout>190</timeout></act>
    </md>
    <md name="md2">
      <parameters>
        <mddriver><port>29062</port></mddriver>
        <netdev id="0"><priority>0</priority><device>400</device></netdev>
        <nmppath>/dev/NMP2</nmppath>
        <diskdev><dppath>/dev/md2/dp</dppath><cppath>/dev/md2/cp</cppath></diskdev>
        <fs>none</fs>
      </parameters>
    </md>
    <md name="md3"><parameters><fs>reiserfs</fs></parameters></md>
    <exec name="exec1"/>
  </resource>
</root>"#;

fn converted() -> Converted {
    convert(SAMPLE.as_bytes()).expect("a clp.conf")
}

#[test]
fn what_it_says_is_ours() {
    let toml = converted().toml;
    let c = Config::parse(Path::new("x"), &toml, Some("first"), "")
        .unwrap_or_else(|e| panic!("{e}\n{toml}"));
    assert_eq!(c.side, Side::First, "by priority, not by place");
    assert_eq!(c.local().agent_address.to_string(), "192.168.0.1");
    let connects: Vec<_> = c.peer().mirror_connect.iter().map(ToString::to_string).collect();
    assert_eq!(connects, ["10.0.0.2", "10.0.1.2"]);
    let [md1, md2] = &c.mirrors[..] else { panic!("two mirrors: {toml}") };
    assert_eq!(md1.partitions[0].data, Path::new("/dev/sdb2"));
    assert_eq!(md1.partitions[1].data, Path::new("/dev/sdc2"));
    assert_eq!(md1.partitions[1].cluster, Path::new("/dev/sdb1"));
    let mount = md1.mount.as_ref().expect("mounted");
    assert_eq!(
        (mount.point.to_str(), mount.retry, mount.timeout.as_secs()),
        (Some("/mnt/md1"), 5, 120)
    );
    assert!(md1.initial_mkfs && !md1.fsck.on_mount_failure);
    assert_eq!(md1.fsck.timing, FsckTiming::Always);
    assert_eq!(md1.both_active, BothActive::Survivor(Side::First));
    assert_eq!((md2.nmp, md2.port, md2.mount.is_none()), (2, 29062, true));
}

/// Each thing that is not taken over is said with its reason, in the file as well.
#[test]
fn what_is_left_is_listed() {
    let Converted { toml, left } = converted();
    for (what, why) in [
        ("cluster", "cluster manager"),
        ("heartbeat", "cluster manager"),
        ("group failover1", "activate_at_start"),
        ("monitor mdw mdw1", "clpmdmon --disk md1"),
        ("monitor userw userw", "cluster manager"),
        ("resource exec exec1", "cluster manager"),
        ("md1: mddriver/hbport = 29031", "connection of the data"),
        ("md1: mddriver/syncmode = 0", "SYNCHRONOUS"),
        ("md1: act", "its own time limit"),
        ("md2: netdev", "one list of mirror connects"),
        ("md3", "reiserfs"),
    ] {
        let said = left.iter().any(|l| l.starts_with(&format!("{what}: ")) && l.contains(why));
        assert!(said, "{what}: {why}: {left:#?}");
        assert!(toml.contains(&format!("#   {what}: ")), "{toml}");
    }
    assert!(
        !left.iter().any(|l| l.contains("compress") || l.contains("networkpartition")),
        "{left:?}"
    );
}

fn refused(text: &str) -> String {
    convert(text.as_bytes()).expect_err("refused")
}

#[test]
fn what_cannot_be_used_is_said() {
    assert!(refused("").contains("root"), "{}", refused(""));
    assert!(refused("<root>\n<a></b></root>").contains("2:"), "the place is named");
    assert!(refused("<root><server").contains("closed"));
    assert!(refused("<html/>").contains("<html>"));
    assert!(refused(&SAMPLE.replace("linux", "windows")).contains("not Linux"));
    assert!(
        refused(
            &SAMPLE
                .replace("<server name=\"first\">", "<other>")
                .replace("<survive>1</survive>\n  </server>", "</other>")
        )
        .contains("1 servers")
    );
    assert!(
        refused(&SAMPLE.replace("<server name=\"first\">", "<server>"))
            .contains("line 15: a server without a name")
    );
    assert!(
        refused(&SAMPLE.replace("<md ", "<nd ").replace("</md>", "</nd>"))
            .contains("no mirror disk")
    );
    assert!(refused(&SAMPLE.replace("<device>40", "<device>77")).contains("no mirror connect"));
}

/// Entities would multiply, nesting would exhaust the stack, size would exhaust memory.
#[test]
fn hostile_files_are_refused_soon() {
    let bomb =
        "<!DOCTYPE root [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;\">]><root>&b;</root>";
    assert!(refused(bomb).contains("DTD"), "{}", refused(bomb));
    assert!(refused(&"<a>".repeat(1_000_000)).contains("nested deeper"));
    assert!(refused(&format!("<root>{}</root>", "<a/>".repeat(200_000))).contains("nodes"));
    // What only looks like the end of an element.
    for hidden in [
        "<a><!--</a>-->",
        "<a><!-- </a> > -->",
        "<a><![CDATA[</a>]]>",
        "<a><?p </a>?>",
        "<a b=\"/>\">",
        "<a b='/>'>",
        "<a b='\">' c=\"/>\">",
        "<a\nb='/>' >",
    ] {
        let deep = format!("<root>{}", hidden.repeat(DEPTH_MAX + 1));
        assert!(refused(&deep).contains("nested deeper"), "{hidden}: {}", refused(&deep));
    }
    // And what only looks like a beginning.
    let flat = "<root>".to_owned() + &"<!--<a>--><b c='>'/><![CDATA[<a>]]>".repeat(100) + "</root>";
    assert!(!refused(&flat).contains("nested deeper"), "{}", refused(&flat));
    let long = vec![b' '; FILE_MAX + 1];
    assert!(convert(&long).expect_err("too long").contains("longer than"));
    let mut other = SAMPLE.as_bytes().to_vec();
    let comment = SAMPLE.find("<comment/>").expect("a comment");
    other.splice(comment..comment, [0xa4, 0xa2, 0xff]);
    assert!(convert(&other).is_ok(), "bytes of another encoding in a text that nobody reads");
}

proptest! {
    /// Whatever is done to the file, it is converted or refused; a value cannot become a key.
    #[test]
    fn any_change_is_converted_or_refused(at in 0..SAMPLE.len(), cut in 0..60usize, add in "[ -~\n]{0,20}") {
        let end = (at + cut).min(SAMPLE.len());
        let text = format!("{}{add}{}", &SAMPLE[..at], &SAMPLE[end..]);
        if let Ok(Converted { toml, .. }) = convert(text.as_bytes()) {
            prop_assert!(toml.parse::<toml::Table>().is_ok(), "{toml}");
        }
    }
}

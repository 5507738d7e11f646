//! `clpmdsecret`: makes the secret that both servers share.

use crate::cli::Common;
use crate::out::Failure;
use clap::Parser;
use mirror_agent::config::Config;
use mirror_agent::messages::MdCode;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Where the secret is unless the configuration says otherwise.
const USUAL: &str = "/etc/clpmd/secret";

/// Bytes of randomness.
const STRENGTH: usize = 32;

const AFTER: &str = "\
Examples:
  clpmdsecret                       on one of the two servers
  scp -p /etc/clpmd/secret root@server2:/etc/clpmd/secret

The file belongs to whoever runs the command, which must be the user of the agent (root), with mode
0600. Its content is never printed. The mirror and the link between the agents are only as safe as
the way by which it is brought to the other server.

Exit codes:
  0   done
  2   wrong options or parameters
  30  internal error
  89  there is a secret already, or the file cannot be written";

/// Make the secret that both servers share
#[derive(Parser, Debug)]
#[command(name = "clpmdsecret", version, after_help = AFTER)]
pub struct Args {
    /// File to write [default: secret_file of the configuration, else /etc/clpmd/secret]
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Replace a secret that is there; the other server needs the new one, too
    #[arg(long)]
    pub force: bool,
    /// Common options
    #[command(flatten)]
    pub common: Common,
}

/// Runs the command.
///
/// # Errors
/// There is a secret already, or the file cannot be written.
pub fn run(args: &Args, out: &mut impl Write) -> Result<(), Failure> {
    let config = Config::load(&args.common.file(), None).ok();
    let other = config.as_ref().map_or("OTHER-SERVER", |c| &c.peer().name);
    // Without a table for this host, the secret may be made all the same.
    let anyhow = || Config::load_anywhere(&args.common.file()).ok();
    let configured = config.clone().or_else(anyhow).map(|c| c.agent.secret_file);
    let file = args.file.clone().or(configured).unwrap_or_else(|| PathBuf::from(USUAL));
    let failed = |what: String| Failure::new(MdCode::Failed, MdCode::Failed.fill(&[&what]));
    make(&file, args.force).map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => failed(format!("{} is there already", file.display()))
            .next("keep it; clpmdsecret --force makes another one, which both servers then need"),
        _ => failed(format!("{}: {e}", file.display())),
    })?;
    tell(&file, args.force, other, out)?;
    Ok(())
}

fn tell(file: &Path, again: bool, other: &str, out: &mut impl Write) -> io::Result<()> {
    let path = file.display();
    let user = nix::unistd::geteuid();
    writeln!(out, "{path} is made: mode 0600, user {user}.")?;
    if !user.is_root() {
        writeln!(out, "Only an agent of user {user} takes it. For the service: run this as root.")?;
    }
    writeln!(
        out,
        "Next, the same file on the other server, over a line that you trust; for example:"
    )?;
    writeln!(out, "  scp -p {path} root@{other}:{path}")?;
    if again {
        writeln!(
            out,
            "then, on both: systemctl restart clusterpro_md. Until both have it, they do not talk."
        )?;
    }
    Ok(())
}

/// Writes a new secret to `file`, which is there with its whole content or not at all.
///
/// # Errors
/// `AlreadyExists` if it is there and `force` is not given; or it cannot be written.
pub fn make(file: &Path, force: bool) -> io::Result<()> {
    let folder = file.parent().filter(|f| *f != Path::new("")).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    if !force && fs::symlink_metadata(file).is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let mut name = file.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let new = folder.join(name);
    let made = write_new(&new).and_then(|()| match force {
        true => fs::rename(&new, file),
        // Unlike a rename, it never replaces what has come meanwhile.
        false => fs::hard_link(&new, file),
    });
    // After a rename it is not there any more, which is as good.
    let _ = fs::remove_file(&new);
    made?;
    File::open(folder)?.sync_all()
}

/// The secret as a line of text: it survives any editor, and can be looked at on a terminal.
fn write_new(path: &Path) -> io::Result<()> {
    let mut bytes = [0; STRENGTH];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    let mut text = String::new();
    for byte in bytes {
        let _ = write!(text, "{byte:02x}"); // a String takes everything
    }
    text.push('\n');
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::{Args, make, run};
    use clap::Parser as _;
    use mirror_agent::secret::Secret;
    use std::fs;
    use std::io::ErrorKind;
    use std::os::unix::fs::{MetadataExt as _, symlink};
    use std::path::Path;

    fn entries(folder: &Path) -> usize {
        fs::read_dir(folder).expect("folder").count()
    }

    #[test]
    fn a_secret_that_the_agent_takes_and_nobody_else_reads() {
        let dir = tempfile::tempdir().expect("folder");
        let file = dir.path().join("new/secret");
        make(&file, false).expect("made");
        let meta = fs::metadata(&file).expect("there");
        assert_eq!(meta.mode() & 0o7777, 0o600);
        assert_eq!(meta.uid(), nix::unistd::geteuid().as_raw());
        let secret = Secret::load(&file).expect("good for the agent");
        assert_eq!(secret.bytes().len(), 64);
        assert_eq!(entries(&dir.path().join("new")), 1, "nothing else is left");
    }

    #[test]
    fn nothing_is_replaced_unless_asked_for() {
        let dir = tempfile::tempdir().expect("folder");
        let file = dir.path().join("secret");
        make(&file, false).expect("made");
        let first = fs::read(&file).expect("read");
        assert_eq!(make(&file, false).expect_err("there").kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&file).expect("read"), first);
        make(&file, true).expect("replaced");
        assert_ne!(fs::read(&file).expect("read"), first);
        assert_eq!(entries(dir.path()), 1);

        let (link, target) = (dir.path().join("link"), dir.path().join("target"));
        symlink(&target, &link).expect("link");
        assert!(make(&link, false).is_err(), "a link to nowhere is something, too");
        assert!(!target.exists());
        make(&link, true).expect("replaced");
        assert!(!target.exists(), "the link is replaced, not followed");
    }

    #[test]
    fn it_says_what_is_next_and_never_the_secret() {
        let dir = tempfile::tempdir().expect("folder");
        let file = dir.path().join("secret");
        let args = |more: &[&str]| {
            let fixed = ["clpmdsecret", "--config", "/nowhere", "--file"];
            let path = file.to_str().expect("a plain name");
            Args::parse_from(fixed.iter().copied().chain([path]).chain(more.iter().copied()))
        };
        let mut out = Vec::new();
        run(&args(&[]), &mut out).expect("made");
        run(&args(&["--force"]), &mut out).expect("made again");
        let refused = run(&args(&[]), &mut out).expect_err("there").to_string();
        let said = String::from_utf8(out).expect("text") + &refused;
        assert!(said.contains("scp -p"), "{said}");
        assert!(said.contains("restart clusterpro_md"), "{said}");
        assert!(refused.contains("is there already") && refused.contains("--force"), "{refused}");
        let secret = fs::read_to_string(&file).expect("read");
        assert!(!said.contains(secret.trim()));
    }
}

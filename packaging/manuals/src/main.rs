//! `clpmd-manuals FOLDER`: writes a man page and the shell completions of every program, from the
//! definitions that `--help` is printed from.
//!
//! It is run when a package is made and is in no package itself.

use clap::{Command, CommandFactory as _};
use clap_complete::{Generator, Shell, generate};
use clap_mangen::Man;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};
use tools::{
    clpmdchng, clpmdconv, clpmdctrl, clpmdinit, clpmdmon, clpmdmsg, clpmdsecret, clpmdstat,
};

/// The daemons; see `build.rs`.
mod found {
    include!(concat!(env!("OUT_DIR"), "/daemons.rs"));

    /// Their command lines.
    pub(super) fn all() -> Vec<clap::Command> {
        daemons()
    }
}

const FILES: &str = "\
.SH FILES
.TP
.I /etc/clpmd/clpmd.toml
The configuration; \\fBclpmdagent \\-\\-config\\-help\\fR prints what can be in it.
.TP
.I /usr/share/doc/clusterpro\\-md/operating.md
The operating guide.
";

fn main() -> ExitCode {
    let Some(folder) = env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("Usage: clpmd-manuals FOLDER");
        return ExitCode::from(2);
    };
    match write_all(&folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("clpmd-manuals: {}: {e}", folder.display());
            ExitCode::FAILURE
        }
    }
}

/// Every program that an operator meets.
fn programs() -> Vec<Command> {
    let mut all = found::all();
    all.extend([
        clpmdstat::Args::command(),
        clpmdctrl::Args::command(),
        clpmdinit::Args::command(),
        clpmdchng::Args::command(),
        clpmdchng::Args::command().name("clpmdchnng"),
        clpmdconv::Args::command(),
        clpmdmon::Args::command(),
        clpmdmsg::Args::command(),
        clpmdsecret::Args::command(),
    ]);
    all
}

fn write_all(folder: &Path) -> io::Result<()> {
    let programs = programs();
    let names: Vec<String> = programs.iter().map(|p| p.get_name().to_owned()).collect();
    for program in programs {
        let name = program.get_name().to_owned();
        write_page(folder, &name, &program, &names)?;
        for (shell, file) in [
            (Shell::Bash, format!("bash-completion/completions/{name}")),
            (Shell::Zsh, format!("zsh/vendor-completions/_{name}")),
            (Shell::Fish, format!("fish/vendor_completions.d/{name}.fish")),
        ] {
            write_file(&folder.join(file), &completion(shell, program.clone(), &name))?;
        }
    }
    Ok(())
}

fn completion(shell: impl Generator, mut program: Command, name: &str) -> Vec<u8> {
    let mut text = Vec::new();
    generate(shell, &mut program, name, &mut text);
    text
}

fn write_page(folder: &Path, name: &str, program: &Command, names: &[String]) -> io::Result<()> {
    let mut text = Vec::new();
    let man = Man::new(program.clone())
        .title(name.to_uppercase())
        .section("8")
        .source(format!("clusterpro-md {}", env!("CARGO_PKG_VERSION")))
        .manual("Mirror disk");
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if let Some(after) = program.get_after_long_help().or_else(|| program.get_after_help()) {
        text.extend(as_it_is(&after.to_string()).into_bytes());
    }
    text.extend(FILES.as_bytes());
    text.extend(see_also(name, names).into_bytes());
    write_file(&folder.join(format!("man/man8/{name}.8")), &text)
}

/// The examples and tables below the options: lines that must stay lines.
fn as_it_is(text: &str) -> String {
    let mut page = String::from(".SH NOTES\n.nf\n");
    for line in text.lines() {
        let line = line.replace('\\', "\\e").replace('-', "\\-");
        // A dot or quote in the first column would be a request.
        let guard = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
        let _ = writeln!(page, "{guard}{line}");
    }
    page.push_str(".fi\n");
    page
}

fn see_also(name: &str, names: &[String]) -> String {
    let others: Vec<String> =
        names.iter().filter(|n| *n != name).map(|n| format!("\\fB{n}\\fR(8)")).collect();
    format!(".SH \"SEE ALSO\"\n{}\n", others.join(",\n"))
}

fn write_file(path: &Path, text: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::File::create(path)?.write_all(text)
}

#[cfg(test)]
mod tests {
    use super::{as_it_is, programs, write_all};

    #[test]
    fn every_definition_holds() {
        for program in programs() {
            program.debug_assert();
        }
    }

    #[test]
    fn the_agent_is_one_of_them() {
        let all = programs();
        let agent = all.iter().find(|p| p.get_name() == "clpmdagent").expect("the agent");
        assert!(agent.get_arguments().any(|a| a.get_long() == Some("check")));
        assert!(agent.get_after_help().is_some());
    }

    #[test]
    fn a_page_and_completions_for_each() {
        let folder = tempfile::tempdir().expect("a folder");
        write_all(folder.path()).expect("written");
        for program in programs() {
            let name = program.get_name();
            let page = folder.path().join(format!("man/man8/{name}.8"));
            let page = std::fs::read_to_string(page).expect("a page");
            assert!(page.contains(".SH OPTIONS") && page.contains(".SH NAME"), "{name}");
            let bash = folder.path().join(format!("bash-completion/completions/{name}"));
            let bash = std::fs::read_to_string(bash).expect("a completion");
            assert!(bash.contains("--version"), "{name}");
        }
    }

    #[test]
    fn lines_stay_lines_and_no_line_is_a_request() {
        assert_eq!(as_it_is(".x\na\\b"), ".SH NOTES\n.nf\n\\&.x\na\\eb\n.fi\n");
    }
}

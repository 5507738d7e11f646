//! The result codes of the module `md` (§12.4.4): exit codes of the tools. Their texts are in the
//! table.

use super::table;
use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)*) => {
        /// A result code. On the control socket it travels as its number.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
        #[serde(into = "u8", try_from = "u8")]
        pub enum MdCode {
            $($(#[$doc])* $name,)*
        }

        impl MdCode {
            /// Every code, in the order of the manual.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The number: the exit code.
            #[must_use]
            pub const fn number(self) -> u8 {
                match self { $(Self::$name => $code,)* }
            }

            /// The text of the manual, with `%1`, `%2`.
            #[must_use]
            pub fn text(self) -> &'static str {
                table::row("md", u16::from(self.number())).map_or("", |m| m.text)
            }
        }

        impl TryFrom<u8> for MdCode {
            type Error = String;

            fn try_from(n: u8) -> Result<Self, String> {
                match n {
                    $($code => Ok(Self::$name),)*
                    _ => Err(format!("{n} is no result code")),
                }
            }
        }
    };
}

codes! {
    /// The agent does not run.
    NoAgent = 1;
    /// Wrong options or parameters.
    BadOptions = 2;
    /// The configuration cannot be read.
    NoConfig = 4;
    /// Something that should not happen.
    Internal = 30;
    /// No such mirror.
    NoMirror = 77;
    /// The cluster partition cannot be read or does not verify.
    ReadCluster = 79;
    /// Mounted (or active) already.
    AlreadyMounted = 80;
    /// This server must not be used.
    NotLatest = 81;
    /// The cluster partition cannot be written.
    WriteCluster = 82;
    /// A command took too long.
    Timeout = 83;
    /// Not mounted (or not active).
    NotMounted = 84;
    /// The mount point cannot be made.
    MountPoint = 87;
    /// A command failed or was refused.
    Failed = 89;
}

impl From<MdCode> for u8 {
    fn from(code: MdCode) -> Self {
        code.number()
    }
}

impl MdCode {
    /// The text with the arguments filled in.
    #[must_use]
    pub fn fill(self, arguments: &[&str]) -> String {
        let arguments: Vec<String> = arguments.iter().map(|&s| s.to_owned()).collect();
        super::events::fill(self.text(), &arguments)
    }
}

impl fmt::Display for MdCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number())
    }
}

//! One error type for everything a device can meet, and one for what only a host can.
//!
//! An error carries what was needed and what was there, and its text says what to do next.

use core::fmt;

/// What can go wrong on a device: a file that is not a model, memory that does not fit.
///
/// A checked model on memory of the checked size cannot produce any of these while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Error {
    /// The bytes end before the file does.
    Truncated {
        /// Bytes the file says it has.
        needed: usize,
        /// Bytes that are there.
        found: usize,
    },
    /// The bytes do not start with the magic of a `.soft` file.
    NotAModel {
        /// The first four bytes, little-endian.
        found: u32,
    },
    /// The file is of a version this library does not read.
    Version {
        /// The version this library reads, the only one.
        needed: u16,
        /// The version of the file.
        found: u16,
    },
    /// The checksum does not match: some byte changed since the file was written.
    Checksum {
        /// The checksum stored in the file.
        needed: u32,
        /// The checksum of the bytes that are there.
        found: u32,
    },
    /// A buffer does not start at the needed alignment.
    Misaligned {
        /// Alignment in bytes.
        needed: usize,
        /// Largest power of two that divides the address.
        found: usize,
    },
    /// A header, tensor or metadata field that no writer produces.
    Malformed {
        /// Byte offset of the record at fault.
        at: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// An op whose operands do not fit its shape or each other.
    Op {
        /// Index of the op in the program.
        index: usize,
        /// Its kind code.
        kind: u16,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The model uses an op that this firmware was not built to run.
    UnsupportedOp {
        /// Index of the op in the program.
        index: usize,
        /// Its kind code.
        kind: u16,
    },
    /// A memory bank is smaller than the program needs.
    TooSmall {
        /// Which bank: "arena", "input", ...
        what: &'static str,
        /// Bytes needed.
        needed: usize,
        /// Bytes there.
        found: usize,
    },
    /// A program writes to a memory bank that was handed over for reading only.
    ReadOnly {
        /// Which bank.
        what: &'static str,
    },
    /// The model's input or scores are of another element type than the program's.
    ElementType {
        /// "raw input" or "score".
        what: &'static str,
        /// The program's type.
        needed: &'static str,
        /// The model's type.
        found: &'static str,
    },
    /// The arena is already in use: `Arena::take` gives it out once.
    ArenaTaken,
}

impl Error {
    /// What is wrong, without the numbers: for compile errors, which cannot format.
    pub const fn summary(&self) -> &'static str {
        match *self {
            Error::Truncated { .. } => "the model file is cut short: copy it again",
            Error::NotAModel { .. } => "not a .soft model: export one with `softedge export`",
            Error::Version { .. } => {
                "the model's format has another version than this library reads: update softedge or export again"
            }
            Error::Checksum { .. } => "the model file is damaged (checksum): copy it again",
            Error::Misaligned { .. } => "the buffer is not aligned to 16 bytes",
            Error::Malformed { what, .. } | Error::Op { what, .. } => what,
            Error::UnsupportedOp { .. } => "the model uses an op outside the accepted set",
            Error::TooSmall { .. } => "a memory bank is too small",
            Error::ReadOnly { .. } => "the program writes to read-only memory",
            Error::ElementType { .. } => "the model's raw input or scores are of another element type",
            Error::ArenaTaken => "the arena was taken before",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Error::Truncated { needed, found } => {
                write!(f, "the model needs {needed} bytes and {found} are there: the file is cut short, copy it again")
            }
            Error::NotAModel { found } => {
                write!(f, "not a .soft model: it starts with {found:#010x}; export one with `softedge export`")
            }
            Error::Version { needed, found } => write!(
                f,
                "the model has format version {found} and this library reads version {needed}: update softedge or export again"
            ),
            Error::Checksum { needed, found } => write!(
                f,
                "checksum {found:#010x} where the file says {needed:#010x}: the model is damaged, copy it again"
            ),
            Error::Misaligned { needed, found } => write!(
                f,
                "the buffer must start at a multiple of {needed} bytes and starts at a multiple of {found}: align it, for instance with `Aligned`"
            ),
            Error::Malformed { at, what } => {
                write!(f, "malformed model, record at byte {at}: {what}; export it again")
            }
            Error::Op { index, kind, what } => {
                write!(f, "op {index} (kind {kind}): {what}; export the model again")
            }
            Error::UnsupportedOp { index, kind } => write!(
                f,
                "op {index} is of kind {kind}, which this program was not built to run: add it to the accepted set of ops"
            ),
            Error::TooSmall { what, needed, found } => {
                write!(f, "the {what} needs {needed} bytes and has {found}: give it more")
            }
            Error::ReadOnly { what } => {
                write!(f, "the program writes to its {what}, which were handed over read-only: pass them mutably")
            }
            Error::ElementType { what, needed, found } => {
                write!(f, "the model's {what} is {found} and the program's {needed}: take a model of that type")
            }
            Error::ArenaTaken => write!(f, "the arena was taken before: share the one reference `take` gave"),
        }
    }
}

impl core::error::Error for Error {}

/// What can go wrong on a host: says where (a file, a field, a shape), what, and the remedy.
#[cfg(feature = "alloc")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostError {
    /// The file, field or tensor at fault.
    pub place: alloc::string::String,
    /// What was needed and what was there.
    pub problem: alloc::string::String,
    /// What to do next; may be empty where the problem says it all.
    pub remedy: alloc::string::String,
}

#[cfg(feature = "alloc")]
impl HostError {
    /// An error at `place` with its `problem` and `remedy`.
    pub fn new(
        place: impl core::fmt::Display,
        problem: impl Into<alloc::string::String>,
        remedy: impl Into<alloc::string::String>,
    ) -> Self {
        use alloc::string::ToString;
        Self { place: place.to_string(), problem: problem.into(), remedy: remedy.into() }
    }
}

#[cfg(feature = "alloc")]
impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

#[cfg(feature = "alloc")]
impl core::error::Error for HostError {}

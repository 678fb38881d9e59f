//! What can be wrong with a spec: the sentence, what to write under the word, and the help.

use std::time::Duration;

use thiserror::Error;

use super::Layer;
use super::file::{FileOp, NeverLate};
use super::quantity::{Quantity, flawed};
use super::units::{Flaw, print_duration};
use super::words::{self, Known};

/// What is wrong with a spec. The message is one sentence that names the word.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Problem {
    /// No word at all.
    #[error("the spec is empty")]
    Empty,
    /// More text than any spec needs.
    #[error("the spec is {bytes} bytes long")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// `"` without a partner.
    #[error("the quote is never closed")]
    UnclosedQuote,
    /// `"` in the middle of a word.
    #[error("a quoted word must stand alone")]
    GluedQuote,
    /// A quoted word where a keyword is expected.
    #[error("a quoted word is never a keyword")]
    QuotedKeyword,
    /// The first word is no verb of any kind.
    #[error("unknown verb `{word}`")]
    UnknownVerb {
        /// As written.
        word: String,
    },
    /// A clause stands where the verb must.
    #[error("a spec starts with its verb, and `{word}` is none")]
    NoVerb {
        /// The clause.
        word: String,
    },
    /// A second verb.
    #[error("a fault has one verb, and `{word}` is a second one")]
    SecondVerb {
        /// The second verb.
        word: String,
        /// The first verb.
        verb: &'static str,
    },
    /// A word that begins no clause.
    #[error("unknown word `{word}`")]
    UnknownWord {
        /// As written.
        word: String,
    },
    /// A value whose clause is missing.
    #[error("`{word}` belongs to no clause")]
    Stray {
        /// As written.
        word: String,
    },
    /// A keyword of another layer.
    #[error("`{word}` is a word of {other} faults, not of {layer} faults")]
    OtherLayer {
        /// The keyword.
        word: &'static str,
        /// The layer that has it.
        other: Layer,
        /// The layer of the spec.
        layer: Layer,
    },
    /// A keyword with capital letters.
    #[error("keywords are lower case: `{word}`")]
    Case {
        /// As written.
        word: String,
    },
    /// A clause that only another verb has.
    #[error("`{word}` does not go with `{verb}`")]
    NotForVerb {
        /// The clause.
        word: &'static str,
        /// The verb of this fault.
        verb: &'static str,
        /// The verbs that have such a clause.
        owners: &'static [&'static str],
    },
    /// A clause that chooses among operations, for what is none.
    #[error("`{word}` chooses among operations, and `{verb}` happens once")]
    HappensOnce {
        /// The clause.
        word: &'static str,
        /// The verb of this fault.
        verb: &'static str,
    },
    /// Nothing, or another keyword, where an operand must follow.
    #[error("`{keyword}` needs {}", wanted.name())]
    Missing {
        /// The verb or clause.
        keyword: String,
        /// What must follow.
        wanted: Quantity,
    },
    /// A number behind `corrupt`, without `bits`.
    #[error("`{number}` is followed by `bits`")]
    BitsWhat {
        /// As written.
        number: String,
    },
    /// An exception without a word.
    #[error("the exception is empty")]
    EmptyException,
    /// A word of faults in an exception.
    #[error(
        "`{word}` is neither a filter of packets nor a trigger, and an exception is made of nothing else"
    )]
    NotAFilter {
        /// As written.
        word: String,
    },
    /// A word that is no filter, nor anything else.
    #[error("unknown word `{word}`")]
    UnknownFilter {
        /// As written.
        word: String,
    },
    /// `then` without `error`.
    #[error("`then` is followed by `error`")]
    ThenWhat,
    /// A word that is not the quantity expected at its place.
    #[error("{}", flawed(word, *wanted, *flaw))]
    Malformed {
        /// As written.
        word: String,
        /// What is expected there.
        wanted: Quantity,
        /// How it falls short.
        flaw: Flaw,
    },
    /// `delay` of an operation on files that cannot be late.
    #[error("`{}` cannot be late: {}", op.word(), because_never_late(*because))]
    NeverLate {
        /// The operation.
        op: FileOp,
        /// Why not.
        because: NeverLate,
    },
    /// `delay` of operations on files that names none.
    #[error("not all operations on files can be late: name those that are to be")]
    LateWhat,
    /// `until-written` without a place, or with too large a one.
    #[error("`until-written` is about certain sectors of one device")]
    BadSectorsWhere {
        /// The limit.
        longest: u64,
    },
    /// An errno the block layer cannot produce.
    #[error("a disk fault cannot fail with `{word}`")]
    Errno {
        /// As written.
        word: String,
    },
    /// The same clause a second time.
    #[error("`{word}` is given twice")]
    Twice {
        /// The clause.
        word: String,
    },
    /// Two clauses that cannot both hold.
    #[error("`{word}` contradicts `{other}`")]
    Contradiction {
        /// The later of the two.
        word: String,
        /// The earlier of the two.
        other: String,
        /// Why they cannot both hold.
        because: &'static str,
    },
    /// `burst` without a probability.
    #[error("`burst` ties the draws of a probability together, and there is none")]
    BurstOfWhat,
    /// Chances of one state that are more than all.
    #[error("{chances} come to more than 100 %")]
    MoreThanAll {
        /// Which ones.
        chances: &'static str,
    },
    /// `correlation` without jitter.
    #[error("`correlation` ties the draws of a jitter together, and there is none")]
    CorrelationOfWhat,
    /// `cell-overhead` without cells.
    #[error("`cell-overhead` is what a link adds to each cell, and there are none")]
    OverheadOfWhat,
    /// Cells of nothing.
    #[error("a cell of `{size}` with an overhead of `{overhead}` takes no time")]
    NoCell {
        /// As the language writes it.
        size: String,
        /// The same.
        overhead: String,
    },
    /// A shape for a jitter that is not there.
    #[error("`{shape}` shapes the jitter, and there is none")]
    ShapeWithoutJitter {
        /// The distribution.
        shape: &'static str,
    },
    /// Uniform jitter that would make delays negative.
    #[error("the jitter, `{}`, is larger than the delay, `{}`", print_duration(*jitter), print_duration(*mean))]
    JitterAboveDelay {
        /// The jitter.
        jitter: Duration,
        /// The delay.
        mean: Duration,
    },
    /// The longest possible delay is above the layer's limit.
    #[error("delay and jitter together reach `{}`", print_duration(*sum))]
    SumTooLong {
        /// Mean and jitter together.
        sum: Duration,
        /// The limit.
        longest: Duration,
    },
    /// Found when the session was planned: a word that names nothing.
    #[error("{sentence}")]
    Unresolved {
        /// One sentence naming the object.
        sentence: String,
        /// What is expected at this word.
        expected: String,
        /// What to do about it.
        help: Option<String>,
    },
}

impl Problem {
    /// What stands under the word: what was expected there.
    pub(super) fn label(&self, layer: Layer) -> String {
        match self {
            Self::Empty | Self::UnknownVerb { .. } | Self::NoVerb { .. } => {
                format!("expected a verb: {}", verbs(layer))
            }
            Self::TooLong { .. } => format!("expected at most {} bytes", super::SPEC_MAX_BYTES),
            Self::UnclosedQuote => "opened here".to_owned(),
            Self::GluedQuote => "expected white space around the quotes".to_owned(),
            Self::QuotedKeyword => "expected a keyword without quotes".to_owned(),
            Self::SecondVerb { verb, .. } => format!("expected a clause of `{verb}`"),
            Self::UnknownWord { .. } | Self::Stray { .. } => "expected a clause or a probability".to_owned(),
            Self::OtherLayer { layer, .. } => format!("expected a word of {layer} faults"),
            Self::Case { .. } => "expected lower case".to_owned(),
            Self::HappensOnce { .. } => "expected `after DURATION`, or nothing".to_owned(),
            Self::NotForVerb { owners: [owner], .. } => format!("only `{owner}` takes this"),
            Self::NotForVerb { owners, .. } => format!("only {} take this", and(owners)),
            Self::Missing { wanted, .. } => format!("expected {}", wanted.example()),
            Self::BitsWhat { number } => format!("expected `{number} bits`"),
            Self::EmptyException | Self::NotAFilter { .. } | Self::UnknownFilter { .. } => {
                "expected a filter such as `tcp` or `port 22`".to_owned()
            }
            Self::ThenWhat => "expected `then error`".to_owned(),
            Self::Malformed { wanted, flaw, .. } => match flaw {
                Flaw::Shape | Flaw::NotARange => format!("expected {}", wanted.example()),
                Flaw::Range => format!("expected {}", wanted.limits()),
                Flaw::NoUnit | Flaw::UnknownUnit => format!("expected {}", wanted.units()),
                Flaw::UnitOrder => "expected units from long to short, each once: `1h30m`".to_owned(),
                Flaw::TooFine => format!("expected {}", wanted.step()),
                Flaw::Backwards => "expected a lower number first, then a higher one".to_owned(),
            },
            Self::NeverLate { .. } => format!("expected {}", one_of_late()),
            Self::LateWhat => format!("expected {} as well", one_of_late()),
            Self::BadSectorsWhere { longest } => {
                format!("expected `on DEVICE` as well, and `sectors A..B` of at most {longest} sectors")
            }
            Self::Errno { .. } => "the block layer always reports EIO".to_owned(),
            Self::Twice { .. } => "given again here".to_owned(),
            Self::Contradiction { because, .. } => (*because).to_owned(),
            Self::BurstOfWhat => "expected a probability such as `5%` as well".to_owned(),
            Self::MoreThanAll { .. } => "expected 100 % at most, both together".to_owned(),
            Self::CorrelationOfWhat => "expected `jitter DURATION` as well".to_owned(),
            Self::OverheadOfWhat => "expected `cell SIZE` as well".to_owned(),
            Self::NoCell { .. } => "expected something to be left of each cell".to_owned(),
            Self::ShapeWithoutJitter { .. } => "expected `jitter DURATION` as well".to_owned(),
            Self::JitterAboveDelay { mean, .. } => {
                format!("expected at most `{}`", print_duration(*mean))
            }
            Self::SumTooLong { longest, .. } => {
                format!("expected at most `{}` in sum", print_duration(*longest))
            }
            Self::Unresolved { expected, .. } => expected.clone(),
        }
    }

    /// What to do about it, where there is something better to say than the label.
    pub(super) fn help(&self, layer: Layer) -> Option<String> {
        let text = match self {
            Self::Empty => "for example: `drop 5% out`".to_owned(),
            Self::UnknownWord { .. } => format!("the clauses are {}", clauses(layer)),
            Self::EmptyException => "for example: `tcp port 22`".to_owned(),
            Self::NotAFilter { .. } | Self::UnknownFilter { .. } => {
                let filters: Vec<_> =
                    words::net_filters().iter().map(|known| format!("`{}`", known.word)).collect();
                format!("the filters are {}; the triggers are those of faults", filters.join(", "))
            }
            Self::NeverLate { op: FileOp::Create, .. } => {
                "an open(2) that makes a file is late with `open`".to_owned()
            }
            Self::NeverLate { .. } | Self::LateWhat => {
                "the disk I/O of files is late by --disk 'delay DURATION file GLOB'".to_owned()
            }
            Self::BitsWhat { number } => format!("a probability is `{number}%`"),
            Self::UnclosedQuote => "inside quotes, write `\\\"` for a quote".to_owned(),
            Self::OtherLayer { other, .. } => {
                format!("give it in a fault of its own: {} SPEC", other.option())
            }
            Self::SecondVerb { .. } => {
                format!("give it in a fault of its own: a second {}", layer.option())
            }
            Self::HappensOnce { .. } => {
                "a scenario repeats it: `every` and `repeat` of a phase, see docs/scenarios.md".to_owned()
            }
            Self::Errno { .. } => "write `error` or `error EIO`".to_owned(),
            Self::JitterAboveDelay { .. } => {
                "a uniform delay cannot be negative; `normal`, `pareto` and `paretonormal` cut at 0"
                    .to_owned()
            }
            Self::Unresolved { help, .. } => return help.clone(),
            _ => return None,
        };
        Some(text)
    }
}

/// Words in a row: "`a`, `b` and `c`".
fn and(words: &[&str]) -> String {
    enumerate(words, "and")
}

fn enumerate(words: &[&str], last_but: &str) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} {last_but} {last}", others.join(", ")),
        None => String::new(),
    }
}

/// The operations on files that can be late.
fn one_of_late() -> String {
    let late: Vec<_> =
        FileOp::ALL.into_iter().filter(|op| op.may_be_late().is_ok()).map(FileOp::word).collect();
    enumerate(&late, "or")
}

const fn because_never_late(because: NeverLate) -> &'static str {
    match because {
        NeverLate::MustNotSleep => "nobody may sleep where the kernel decides",
        NeverLate::LocksDirectory => "with its directory locked, others would wait as well",
        NeverLate::LocksFile => "with the file locked, others would wait as well",
    }
}

/// The verbs this version has, with their operands.
fn verbs(layer: Layer) -> String {
    list(layer, true, |known| known.usage)
}

/// The clauses this version has, without their operands.
fn clauses(layer: Layer) -> String {
    list(layer, false, |known| known.word)
}

fn list(layer: Layer, verb: bool, text: impl Fn(Known) -> &'static str) -> String {
    let words = words::of(layer).iter().copied();
    let words = words.filter(|known| known.verb == verb);
    let words: Vec<_> = words.map(|known| format!("`{}`", text(known))).collect();
    words.join(", ")
}

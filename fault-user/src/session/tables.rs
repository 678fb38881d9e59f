//! `table FILE`: distributions of delays, in the format of netem's (`*.dist` of iproute2, which tc(8) reads).
//!
//! Integers between white space, lines that begin with `#` left out, up to 16384 of them: each a delay that is as likely as any
//! other, as its distance from the mean, where 8192 is the jitter (`get_distribution`, tc/q_netem.c; `NETEM_DIST_SCALE`,
//! include/uapi/linux/pkt_sched.h).

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use fault_common::decide::delay::{TABLE_ONE_BITS, TABLE_SIZE, Table};

/// The most numbers that tc reads.
const MOST: usize = 16384;
/// The largest file that is read: every number with its sign and a space, and comments as long again.
const LONGEST: u64 = 256 * 1024;

/// A file that holds no distribution.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// It cannot be read.
    #[error("the distribution {0} cannot be read")]
    Read(PathBuf, #[source] io::Error),
    /// It is no such file.
    #[error("{0} is no distribution: it is longer than {LONGEST} bytes, or no file")]
    TooLong(PathBuf),
    /// A word is no number.
    #[error("{path} is no distribution: `{word}` in line {line} is no whole number from -32768 to 32767")]
    NoNumber {
        /// The file.
        path: PathBuf,
        /// The word.
        word: String,
        /// Its line.
        line: usize,
    },
    /// Too few or too many.
    #[error("{path} is no distribution: it has {numbers} numbers, and 2 to {MOST} make one")]
    Count {
        /// The file.
        path: PathBuf,
        /// How many it has.
        numbers: usize,
    },
}

/// Reads the distribution in the file at `path`.
///
/// # Errors
/// See [`TableError`].
pub fn read(path: &Path) -> Result<Box<Table>, TableError> {
    let wrong = |error| TableError::Read(path.to_owned(), error);
    // A pipe or a device might never end.
    let metadata = fs::metadata(path).map_err(wrong)?;
    if !metadata.is_file() || metadata.len() > LONGEST {
        return Err(TableError::TooLong(path.to_owned()));
    }
    parse(path, &fs::read_to_string(path).map_err(wrong)?)
}

fn parse(path: &Path, text: &str) -> Result<Box<Table>, TableError> {
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.starts_with('#'));
    let words = lines.flat_map(|(number, line)| line.split_whitespace().map(move |word| (number, word)));
    let number = |(line, word): (usize, &str)| {
        word.parse::<i16>().map(i32::from).map_err(|_| TableError::NoNumber {
            path: path.to_owned(),
            word: crate::spec::visible(word).chars().take(40).collect(),
            line,
        })
    };
    let mut numbers = words.map(number).collect::<Result<Vec<_>, _>>()?;
    if !(2..=MOST).contains(&numbers.len()) {
        return Err(TableError::Count { path: path.to_owned(), numbers: numbers.len() });
    }
    numbers.sort_unstable();
    Ok(quantiles(&numbers))
}

/// The quantiles of numbers that are all alike likely, and sorted. On the border of two of them it lies between, so that what is
/// interpolated has their mean.
fn quantiles(sorted: &[i32]) -> Box<Table> {
    const { assert!(TABLE_ONE_BITS == 13, "a jitter is 8192 here and in the files") };
    let mut table = Box::new([0; TABLE_SIZE + 1]);
    let last = sorted.len() - 1;
    for (index, quantile) in table.iter_mut().enumerate() {
        // In units of 1/TABLE_SIZE of a number.
        let place = index * sorted.len();
        let above = sorted[(place / TABLE_SIZE).min(last)];
        let below = match place {
            0 => above,
            place => sorted[((place - 1) / TABLE_SIZE).min(last)],
        };
        *quantile = i32::midpoint(below, above);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Result<Box<Table>, String> {
        parse(Path::new("/x.dist"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_of_netem_is_read() {
        let text: String =
            (0..4096).map(|n| format!("{:>7}{}", n - 2048, if n % 8 == 7 { "\n" } else { "" })).collect();
        let table = table(&format!("# a line\n{text}# the end 7\n")).unwrap();
        assert_eq!((table[0], table[TABLE_SIZE]), (-2048, 2047));
        // Between two numbers in the middle.
        assert_eq!((table[1], table[2048]), (-2047, 0));
        let mean = table.windows(2).map(|pair| f64::from(pair[0] + pair[1]) / 2.0).sum::<f64>() / 4096.0;
        assert!((mean + 0.5).abs() < 0.51, "{mean}");
    }

    #[test]
    fn few_numbers_are_steps() {
        let table = table("3000 -1000").unwrap();
        assert_eq!(
            [0, 1, 2047, 2048, 2049, 4096].map(|at| table[at]),
            [-1000, -1000, -1000, 1000, 3000, 3000]
        );
    }

    #[test]
    fn what_is_no_distribution_is_said_in_a_sentence() {
        let wrong = |text: &str| table(text).map(|_| ()).unwrap_err();
        assert_eq!(
            wrong("1 2\n3 x4\t5"),
            "/x.dist is no distribution: `x4` in line 2 is no whole number from -32768 to 32767"
        );
        assert_eq!(
            wrong("1 40000"),
            "/x.dist is no distribution: `40000` in line 1 is no whole number from -32768 to 32767"
        );
        assert_eq!(
            wrong("# nothing\n 5\n"),
            "/x.dist is no distribution: it has 1 numbers, and 2 to 16384 make one"
        );
        assert!(wrong(&"1 ".repeat(16385)).contains("16385 numbers"));
        let missing = read(Path::new("/nowhere/x.dist")).map(|_| ()).unwrap_err();
        assert_eq!(missing.to_string(), "the distribution /nowhere/x.dist cannot be read");
        assert!(matches!(read(Path::new("/dev/zero")), Err(TableError::TooLong(_))));
    }
}

//! Several writers of one destination, each of whole lines.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

/// See the module.
#[derive(Clone)]
pub struct SharedLines {
    out: Arc<Mutex<Box<dyn Write + Send>>>,
    /// The beginning of a line.
    begun: Vec<u8>,
}

impl SharedLines {
    /// The first of several writers to `out`; the others are clones of it.
    #[must_use]
    pub fn new(out: Box<dyn Write + Send>) -> Self {
        Self { out: Arc::new(Mutex::new(out)), begun: Vec::new() }
    }
}

impl Write for SharedLines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else {
            self.begun.extend(bytes);
            return Ok(bytes.len());
        };
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        out.write_all(&self.begun)?;
        self.begun.clear();
        out.write_all(&bytes[..=end])?;
        self.begun.extend(&bytes[end + 1..]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stay_whole() {
        let written = Arc::new(Mutex::new(Vec::new()));
        struct Tee(Arc<Mutex<Vec<u8>>>);
        impl Write for Tee {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().extend(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut first = SharedLines::new(Box::new(Tee(Arc::clone(&written))));
        let mut second = first.clone();
        first.write_all(b"{\"a\":").unwrap();
        second.write_all(b"{\"b\":2}\n{\"c\"").unwrap();
        first.write_all(b"1}\n").unwrap();
        second.write_all(b":3}\n").unwrap();
        assert_eq!(written.lock().unwrap().as_slice(), b"{\"b\":2}\n{\"a\":1}\n{\"c\":3}\n");
    }
}

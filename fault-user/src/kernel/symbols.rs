//! Where functions of the running kernel are.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
};

const TABLE: &str = "/proc/kallsyms";

/// The address of the function `name` of the kernel itself; nothing if there is none, or if the kernel keeps addresses to
/// itself (`kernel.kptr_restrict`, proc_sys_kernel(5)).
///
/// # Errors
/// When the table of symbols cannot be read.
pub fn address(name: &str) -> io::Result<Option<u64>> {
    let mut table = BufReader::new(File::open(TABLE)?);
    let mut line = Vec::new();
    while table.read_until(b'\n', &mut line)? > 0 {
        if let Some(address) = read(&line, name) {
            return Ok((address != 0).then_some(address));
        }
        line.clear();
    }
    Ok(None)
}

/// `ffffffff81000000 T name`, and the module in brackets if it is of one.
fn read(line: &[u8], name: &str) -> Option<u64> {
    let line = std::str::from_utf8(line).ok()?;
    let mut fields = line.split_ascii_whitespace();
    let (address, kind, symbol) = (fields.next()?, fields.next()?, fields.next()?);
    let is_function = kind.eq_ignore_ascii_case("t") && symbol == name && fields.next().is_none();
    if is_function { u64::from_str_radix(address, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_of_the_kernel_itself_are_found() {
        assert_eq!(read(b"ffffffff81234567 t do_it\n", "do_it"), Some(0xffff_ffff_8123_4567));
        for other in
            ["ffffffff81234567 d do_it\n", "ffffffffc0000000 t do_it\t[module]\n", "0 t do_it_now\n", "\n"]
        {
            assert_eq!(read(other.as_bytes(), "do_it"), None, "{other}");
        }
    }
}

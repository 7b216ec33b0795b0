//! Greets whoever is named on stdin, as `GREETING` in the environment says.

use std::io::{self, Read, Write};
use std::process;

const NAME_BYTES_MAX: usize = 200;
const EXIT_USAGE: i32 = 2;

fn main() -> io::Result<()> {
    let mut name = String::new();
    io::stdin()
        .take(NAME_BYTES_MAX as u64 + 2)
        .read_to_string(&mut name)?;
    let name = name.strip_suffix('\n').unwrap_or(&name);
    if name.len() > NAME_BYTES_MAX || name.contains('\n') {
        eprintln!("{{name}}: one name, please, of at most {NAME_BYTES_MAX} bytes");
        process::exit(EXIT_USAGE);
    }
    let name = if name.is_empty() { "World" } else { name };
    let greeting = std::env::var("GREETING").unwrap_or_else(|_| "Hello".to_owned());
    writeln!(io::stdout(), "{greeting}, {name}!")
}

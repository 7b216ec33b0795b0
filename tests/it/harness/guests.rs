//! Guests in text form. Each is a WASI preview 1 command.

/// `guest-examples/toolbox`: the applets `echo cat env rev wc sleep sha256 exit`.
pub const TOOLBOX: &[u8] = include_bytes!("../../../guest-examples/toolbox/toolbox.wasm");

/// A module with the imports that guests use, `pages` of memory, and `body`: functions, data, and `_start`.
pub fn module(pages: u32, body: &str) -> String {
    format!(
        r#"(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") {pages})
  ;; Writes `len` bytes at `at` to `fd`; past what one write takes, it goes on.
  (func $put (param $fd i32) (param $at i32) (param $len i32)
    (loop $more
      (i32.store (i32.const 0) (local.get $at))
      (i32.store (i32.const 4) (local.get $len))
      (if (call $write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)) (then unreachable))
      (local.set $at (i32.add (local.get $at) (i32.load (i32.const 8))))
      (local.set $len (i32.sub (local.get $len) (i32.load (i32.const 8))))
      (br_if $more (local.get $len))))
  ;; Sleeps so many nanoseconds.
  (func $sleep (param $ns i64)
    (memory.fill (i32.const 64) (i32.const 0) (i32.const 64))
    (i32.store (i32.const 80) (i32.const 1))
    (i64.store (i32.const 88) (local.get $ns))
    (drop (call $poll (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 16))))
  {body})"#
    )
}

/// A module whose `_start` does `instructions`.
pub fn start(instructions: &str) -> String {
    module(2, &format!(r#"(func (export "_start") {instructions})"#))
}

/// Writes a text to stdout.
pub fn prints(text: &str) -> String {
    let body = format!(
        r#"(data (i32.const 1024) "{}") (func (export "_start")
             (call $put (i32.const 1) (i32.const 1024) (i32.const {})))"#,
        escaped(text),
        text.len()
    );
    module(2, &body)
}

/// Writes a text to stderr and exits with a status.
pub fn fails(status: i32, text: &str) -> String {
    let body = format!(
        r#"(data (i32.const 1024) "{}") (func (export "_start")
             (if (i32.const {len}) (then (call $put (i32.const 2) (i32.const 1024) (i32.const {len}))))
             (call $exit (i32.const {status})))"#,
        escaped(text),
        len = text.len()
    );
    module(2, &body)
}

/// A text as a module's text has it.
fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("\\{byte:02x}")).collect()
}

/// Computes for ever.
pub fn spins() -> String {
    start("(loop (br 0))")
}

/// Computes for ever before its `_start`.
pub fn spins_at_instantiation() -> String {
    module(1, r#"(func $init (loop (br 0))) (start $init) (func (export "_start"))"#)
}

/// Sleeps in the host, and then writes `woke`.
pub fn sleeps(nanoseconds: u64) -> String {
    let body = format!(
        r#"(data (i32.const 1024) "woke") (func (export "_start") (call $sleep (i64.const {nanoseconds}))
             (call $put (i32.const 1) (i32.const 1024) (i32.const 4)))"#
    );
    module(2, &body)
}

/// Writes so many bytes `x` to `fd`, at most a page with each write.
pub fn writes(fd: i32, bytes: u32) -> String {
    let body = format!(
        r#"(func (export "_start") (local $left i32) (local $n i32)
             (memory.fill (i32.const 65536) (i32.const 120) (i32.const 65536))
             (local.set $left (i32.const {bytes}))
             (loop $more
               (local.set $n (select (local.get $left) (i32.const 65536) (i32.lt_u (local.get $left) (i32.const 65536))))
               (if (local.get $n) (then
                 (call $put (i32.const {fd}) (i32.const 65536) (local.get $n))
                 (local.set $left (i32.sub (local.get $left) (local.get $n)))
                 (br $more)))))"#
    );
    module(2, &body)
}

/// Writes to `fd` without end.
pub fn floods(fd: i32) -> String {
    start(&format!("(loop (call $put (i32.const {fd}) (i32.const 65536) (i32.const 65536)) (br 0))"))
}

/// Hands 64 MB to one write.
pub fn writes_64_mb_at_once() -> String {
    let body = r#"(func (export "_start") (call $put (i32.const 1) (i32.const 65536) (i32.const 67108864)))"#;
    module(1025, body)
}

/// Grows its memory by `pages` until it is refused, and then does `after`.
pub fn grows(pages: u32, after: &str) -> String {
    start(&format!("(loop (br_if 0 (i32.ne (memory.grow (i32.const {pages})) (i32.const -1)))) {after}"))
}

/// Calls itself without end.
pub fn recurses() -> String {
    module(
        1,
        r#"(func $f (param i64) (result i64) (i64.add (call $f (local.get 0)) (i64.const 1)))
        (func (export "_start") (drop (call $f (i64.const 0))))"#,
    )
}

/// Copies stdin to stdout.
pub fn cat() -> String {
    copies_to(&[1])
}

/// Copies stdin to each of these files.
pub fn copies_to(files: &[u32]) -> String {
    let put = |file| format!("(call $put (i32.const {file}) (i32.const 65536) (i32.load (i32.const 24)))");
    let puts: String = files.iter().map(put).collect();
    let body = format!(
        r#"(func (export "_start") (loop $more
             (i32.store (i32.const 16) (i32.const 65536))
             (i32.store (i32.const 20) (i32.const 65536))
             (if (call $read (i32.const 0) (i32.const 16) (i32.const 1) (i32.const 24)) (then unreachable))
             (if (i32.load (i32.const 24)) (then {puts} (br $more)))))"#
    );
    module(2, &body)
}

/// Counts its own calls in a global, in memory and in a table, and writes the sum of the three as one letter: `D` is 1 each.
pub fn counts() -> String {
    let body = r#"(global $calls (mut i32) (i32.const 0)) (table 2 funcref) (elem declare func $_start)
        (func $_start (export "_start") (local $table i32)
          (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
          (i32.store (i32.const 200000) (i32.add (i32.load (i32.const 200000)) (i32.const 1)))
          (local.set $table (i32.add (ref.is_null (table.get (i32.const 1))) (i32.const 0)))
          (table.set (i32.const 1) (ref.func $_start))
          (i32.store8 (i32.const 1024) (i32.add (i32.const 65)
            (i32.add (local.get $table) (i32.add (global.get $calls) (i32.load (i32.const 200000))))))
          (call $put (i32.const 1) (i32.const 1024) (i32.const 1)))"#;
    module(8, body)
}

/// Fills all of its memory with a secret.
pub fn plants_a_secret() -> String {
    module(8, r#"(func (export "_start") (memory.fill (i32.const 1024) (i32.const 83) (i32.const 523264)))"#)
}

/// Looks through all of its memory for what it did not write there, and traps if it finds something.
pub fn looks_for_secrets() -> String {
    let body = r#"(data (i32.const 1024) "clean") (func (export "_start") (local $at i32)
        (local.set $at (i32.const 2048))
        (loop $more
          (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then unreachable))
          (local.set $at (i32.add (local.get $at) (i32.const 8)))
          (br_if $more (i32.lt_u (local.get $at) (i32.const 524288))))
        (call $put (i32.const 1) (i32.const 1024) (i32.const 5)))"#;
    module(8, body)
}

/// Writes a text to stdout out of a memory with 64-bit addresses.
pub fn wide_prints(text: &str) -> String {
    let len = text.len();
    format!(
        r#"(module
          (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
          (memory (export "memory") i64 1)
          (data (i64.const 1024) "{text}")
          (func (export "_start")
            (i32.store (i64.const 0) (i32.const 1024))
            (i32.store (i64.const 4) (i32.const {len}))
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#
    )
}

/// A module that knows the clock on the wall, the number of its start, and its stdin, and does `instructions`.
///
/// `$stamp` writes the clock (eight bytes) and the number of the start (a digit), `$attempt` says the latter, `$cat` copies
/// stdin, `$sleep` sleeps so many nanoseconds, and `$print` writes so many bytes from 1024.
fn aware(instructions: &str) -> String {
    format!(
        r#"(module
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $environ (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 3)
  (func $put (param $at i32) (param $len i32)
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (local.get $len))
    (if (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)) (then unreachable)))
  (func $print (param $len i32) (call $put (i32.const 1024) (local.get $len)))
  ;; Looks for `HYPER_AT` at the beginning of a variable, and takes the digit behind `HYPER_ATTEMPT=`.
  (func $attempt (result i32) (local $at i32) (local $end i32)
    (if (call $sizes (i32.const 16) (i32.const 20)) (then unreachable))
    (if (call $environ (i32.const 2048) (i32.const 65536)) (then unreachable))
    (local.set $at (i32.const 65536))
    (loop $more
      (if (i64.eq (i64.load (local.get $at)) (i64.const 0x54415f5245505948))
        (then (return (i32.load8_u (i32.add (local.get $at) (i32.const 14))))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $more (i32.lt_u (local.get $at) (i32.const 131000))))
    unreachable)
  (func $stamp
    (if (call $clock (i32.const 0) (i64.const 1) (i32.const 32)) (then unreachable))
    (i32.store8 (i32.const 40) (call $attempt))
    (call $put (i32.const 32) (i32.const 9)))
  (func $cat
    (loop $more
      (i32.store (i32.const 16) (i32.const 65536))
      (i32.store (i32.const 20) (i32.const 65536))
      (if (call $read (i32.const 0) (i32.const 16) (i32.const 1) (i32.const 24)) (then unreachable))
      (if (i32.load (i32.const 24)) (then (call $put (i32.const 65536) (i32.load (i32.const 24))) (br $more)))))
  (func $sleep (param $ns i64)
    (memory.fill (i32.const 64) (i32.const 0) (i32.const 64))
    (i32.store (i32.const 80) (i32.const 1))
    (i64.store (i32.const 88) (local.get $ns))
    (drop (call $poll (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 16))))
  (func (export "_start") {instructions}))"#
    )
}

/// Writes the clock (eight bytes) and the number of its start (a digit) and copies stdin behind them, see [`Stamped`]; then
/// sleeps so many nanoseconds.
pub fn stamps(nanoseconds: u64) -> String {
    aware(&format!("(call $stamp) (call $cat) (call $sleep (i64.const {nanoseconds}))"))
}

/// What [`stamps`] writes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamped {
    /// When it was started, in nanoseconds.
    pub at: u64,
    /// Which start of its call it was.
    pub attempt: u8,
    /// Its stdin.
    pub body: String,
}

impl Stamped {
    pub fn of(output: &[u8]) -> Self {
        let (at, rest) = output.split_at(8);
        let body = String::from_utf8(rest[1..].to_vec()).unwrap();
        Self { at: u64::from_le_bytes(at.try_into().unwrap()), attempt: rest[0] - b'0', body }
    }
}

/// Sleeps for a year, but from its `attempt`th start on: that one writes its number.
pub fn sleeps_before_attempt(attempt: u8) -> String {
    before_attempt(attempt, "(call $sleep (i64.const 31536000000000000))")
}

/// The same, but computes for ever.
pub fn spins_before_attempt(attempt: u8) -> String {
    before_attempt(attempt, "(loop (br 0))")
}

fn before_attempt(attempt: u8, instructions: &str) -> String {
    let digit = b'0' + attempt;
    let instructions = format!(
        "(if (i32.lt_u (call $attempt) (i32.const {digit})) (then {instructions}))
         (i32.store8 (i32.const 1024) (call $attempt)) (call $print (i32.const 1))"
    );
    aware(&instructions)
}

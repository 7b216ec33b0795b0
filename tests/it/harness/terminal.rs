//! A session in a terminal: keys in, a screen out, as whoever sits before it has them.

use super::{PATIENCE, eventually};
use rustix::process::{ioctl_tiocsctty, setsid};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Ctrl-C, as the keyboard sends it.
pub const CTRL_C: &str = "\x03";

/// A program in a terminal of its own; dropped, it is killed.
pub struct Terminal {
    child: Child,
    keyboard: File,
    screen: Arc<Mutex<vt100::Parser>>,
    drawing: Option<JoinHandle<()>>,
}

impl Terminal {
    /// Starts a program in a terminal of 24 lines and 100 columns.
    pub fn start(program: Command) -> Self {
        Self::of_size(24, 100, program)
    }

    /// Starts a program in a terminal of this size.
    pub fn of_size(lines: u16, columns: u16, mut program: Command) -> Self {
        let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&near).unwrap();
        unlockpt(&near).unwrap();
        tcsetwinsize(&near, Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let far = ioctl_tiocgptpeer(&near, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        let stream = || far.try_clone().unwrap();
        program.stdin(stream()).stdout(stream()).stderr(stream());
        // What the terminal of this process can do says nothing of this one.
        let is_said = |program: &Command, name: &str| program.get_envs().any(|(said, _)| said == name);
        for of_this_process in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLORTERM", "CI", "COLUMNS", "LINES"] {
            if !is_said(&program, of_this_process) {
                program.env_remove(of_this_process);
            }
        }
        if !is_said(&program, "TERM") {
            program.env("TERM", "xterm-256color");
        }
        let terminal = stream();
        // The keyboard's signals go to whom the terminal is the controlling one of.
        let control = move || {
            setsid()?;
            Ok(ioctl_tiocsctty(&terminal)?)
        };
        #[allow(unsafe_code, reason = "std has no other way to run anything between fork and exec")]
        // SAFETY: two system calls, which allocate nothing and take no lock.
        let child = unsafe { program.pre_exec(control) }.spawn().unwrap();
        // The screen ends when nobody has the far end any more: not this process either.
        drop((program, far));

        let screen = Arc::new(Mutex::new(vt100::Parser::new(lines, columns, 0)));
        let (drawn, mut output) = (Arc::clone(&screen), File::from(near.try_clone().unwrap()));
        let drawing = thread::spawn(move || {
            let mut bytes = [0; 4096];
            // At the end it is an error: nobody is there.
            while let Ok(read @ 1..) = output.read(&mut bytes) {
                drawn.lock().unwrap().process(&bytes[..read]);
            }
        });
        Self { child, keyboard: near.into(), screen, drawing: Some(drawing) }
    }

    /// Types.
    pub fn keys(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Something of the screen.
    pub fn see<T>(&self, look: impl FnOnce(&vt100::Screen) -> T) -> T {
        look(self.screen.lock().unwrap().screen())
    }

    /// The text on the screen: a line that is broken at its edge is one line. What is blank at an end is left out.
    pub fn text(&self) -> String {
        let contents = self.see(vt100::Screen::contents);
        let lines: Vec<&str> = contents.lines().map(str::trim_end).collect();
        lines.join("\n").trim_end().to_owned()
    }

    /// The lines of the screen as they stand there, without what is blank at their ends and below them.
    pub fn lines(&self) -> Vec<String> {
        let row = |row: String| row.trim_end().to_owned();
        let mut lines: Vec<String> = self.see(|screen| screen.rows(0, screen.size().1).map(row).collect());
        lines.truncate(lines.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1));
        lines
    }

    /// Waits until the screen shows this.
    #[track_caller]
    pub fn shows(&self, text: &str) {
        self.becomes(&format!("the screen shows {text:?}"), |screen| screen.contains(text));
    }

    /// Waits until the text on the screen is such.
    #[track_caller]
    pub fn becomes(&self, what: &str, is_such: impl Fn(&str) -> bool) {
        let began = Instant::now();
        while !is_such(&self.text()) {
            assert!(began.elapsed() < PATIENCE, "in vain: {what}; it shows:\n{}", self.lines().join("\n"));
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the program has ended and all that it wrote is on the screen.
    pub fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("it ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        if let Some(drawing) = self.drawing.take() {
            drawing.join().unwrap();
        }
        status.unwrap()
    }

    /// Whether the terminal is as a shell wants it back: what is typed is shown, a line at a time, and so is the cursor.
    pub fn is_sane(&self) -> bool {
        let wanted = LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        let modes = tcgetattr(&self.keyboard).unwrap().local_modes;
        modes.contains(wanted) && self.see(|screen| !screen.hide_cursor() && !screen.alternate_screen())
    }

    /// Whether anything on the screen has a colour, or stands out otherwise.
    pub fn is_coloured(&self) -> bool {
        let stands_out = |cell: &vt100::Cell| {
            cell.fgcolor() != vt100::Color::Default || cell.bold() || cell.dim() || cell.underline()
        };
        self.see(|screen| {
            let (lines, columns) = screen.size();
            let mut places = (0..lines).flat_map(|line| (0..columns).map(move |column| (line, column)));
            places.any(|(line, column)| screen.cell(line, column).is_some_and(stands_out))
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

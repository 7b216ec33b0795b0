//! `hyperfunc`: see the library for the tour.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    hyperfunc::failpoint::set_up();
    // The one exit: nothing that still runs, such as a guest, is waited for.
    std::process::exit(hyperfunc::cli::run(std::env::args_os()).into());
}

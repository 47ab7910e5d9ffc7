//! A process that lives long begins without huge pages.
//!
//! Invariant: where that cannot be, it goes on as it is.

use std::os::unix::process::CommandExt as _;

/// The allocator asks for huge pages, of which little is filled: 11 MiB resident for an agent that holds 2, 409 MiB for an
/// engine in a storm that holds 147. It has done so before anything here runs, so the process begins anew without them.
pub(super) fn without_huge_pages(command: &str) {
    let wanted = matches!(rustix::thread::transparent_huge_pages_are_disabled(), Ok(false));
    if !wanted || rustix::thread::disable_transparent_huge_pages(true).is_err() {
        return;
    }
    let mut words = std::env::args_os();
    let (Some(name), Ok(program)) = (words.next(), std::env::current_exe()) else { return };
    // It only comes back with an error.
    let error = std::process::Command::new(program).arg0(name).args(words).exec();
    eprintln!("nightshift {command}: not restarted without huge pages, so it uses more memory: {error}");
}

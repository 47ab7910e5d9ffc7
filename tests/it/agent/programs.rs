//! The two small programs that the binary is for itself, where an image has no shell: seen from outside, as the agent
//! starts them.
//!
//! Invariant: only processes of the test's own are asked for anything.

use super::*;

fn nightshift(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nightshift")).args(args).output().unwrap()
}

#[test]
fn the_end_of_a_program_is_left_in_a_file_however_it_ended() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (code, pid) = (at("code"), at("pid"));
    let ended = |program: &[&str]| {
        let output = nightshift(&[&["wait-for-program", &code, &pid], program].concat());
        assert!(output.status.success(), "{output:?}");
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (std::fs::read_to_string(&code).unwrap().trim().to_owned(), said)
    };
    assert_eq!(ended(&["sh", "-c", "echo in use; exit 3"]), ("3".to_owned(), "in use\n".to_owned()));
    assert_eq!(ended(&["sh", "-c", "kill -9 $$"]).0, "137", "as a shell says it");
    let (code_of_none, said) = ended(&["/no/such/program"]);
    assert_eq!(code_of_none, "127");
    assert!(said.contains("cannot start /no/such/program: No such file"), "{said}");
    assert!(std::fs::read_to_string(&pid).unwrap().parse::<u32>().is_ok());
    assert!(!Path::new(&format!("{code}.new")).exists());
}

/// A shell under the name of systemd notes the signal that systemd(1) promises to reboot on.
#[test]
fn systemd_is_asked_for_a_reboot_by_its_signal_and_no_other_init_is() {
    let dir = tempfile::tempdir().unwrap();
    let script = "trap 'echo asked; kill %1; exit 0' RTMIN+5; sleep 600 & echo ready; wait";
    for (name, asked) in [("systemd", true), ("tini", false)] {
        let shell = dir.path().join(name);
        std::fs::copy("/bin/bash", &shell).unwrap();
        let mut init = Command::new(&shell).arg("-c").arg(script).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = std::io::BufReader::new(init.stdout.take().unwrap());
        let mut line = String::new();
        std::io::BufRead::read_line(&mut said, &mut line).unwrap();
        assert_eq!(line, "ready\n");
        let output = nightshift(&["ask-init-to-reboot", &init.id().to_string()]);
        assert_eq!(output.status.success(), asked, "{output:?}");
        if asked {
            line.clear();
            std::io::BufRead::read_line(&mut said, &mut line).unwrap();
            assert_eq!(line, "asked\n");
            assert!(init.wait().unwrap().success());
        } else {
            let words = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(words.contains("is `tini`, not systemd") && words.contains("hostPID: true"), "{words}");
            assert!(init.try_wait().unwrap().is_none(), "it was left alone");
            Command::new("pkill").args(["-P", &init.id().to_string()]).status().unwrap();
            let _ = init.kill();
            init.wait().unwrap();
        }
    }
    let output = nightshift(&["ask-init-to-reboot", "-1"]);
    assert!(!output.status.success(), "all processes of the node are no init: {output:?}");
}

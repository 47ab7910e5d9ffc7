//! The supply chain: what the scripts bring from an index is pinned, and known vulnerabilities fail the check.
//!
//! Invariant: nothing here reaches a registry; `cargo-deny` and `cargo` are stand-ins that record how they are called.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn program(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// `tools/deny.sh` with stand-ins: the version that `cargo-deny` prints, and whether its two commands succeed. Returns whether the
/// script did, and the calls.
fn deny(version: &str, fetches: bool, is_clean: bool) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    for name in ["deny.sh", "lib.sh"] {
        let script = std::fs::read_to_string(root().join("tools").join(name)).unwrap();
        program(&folder.path().join("tools").join(name), &script);
    }
    let calls = folder.path().join("calls");
    let log = format!("echo \"$0 $*\" >>{}", calls.display());
    let (fetches, is_clean) = (i32::from(!fetches), i32::from(!is_clean));
    let fake = format!(
        "#!/bin/sh\n[ \"$1\" != --version ] || {{ echo 'cargo-deny {version}'; exit 0; }}\n{log}\n\
         case \"$*\" in *' fetch '*) exit {fetches} ;; *advisories*) exit {is_clean} ;; esac\n"
    );
    program(&folder.path().join("bin/cargo-deny"), &fake);
    program(&folder.path().join("bin/cargo"), &format!("#!/bin/sh\n{log}\nexit 1\n"));
    let path = format!("{}:{}", folder.path().join("bin").display(), std::env::var("PATH").unwrap());
    let done = Command::new("bash").arg(folder.path().join("tools/deny.sh")).env("PATH", path).output().unwrap();
    (done.status.success(), std::fs::read_to_string(calls).unwrap_or_default())
}

fn pinned() -> String {
    let script = std::fs::read_to_string(root().join("tools/deny.sh")).unwrap();
    script.lines().find_map(|line| line.strip_prefix("version=")).unwrap().to_owned()
}

#[test]
fn a_known_vulnerability_fails_make_deny_and_only_the_pinned_program_decides() {
    let version = pinned();
    let (good, calls) = deny(&version, true, true);
    assert!(good && calls.contains("bans licenses sources") && calls.contains("advisories"), "{calls}");
    let (good, calls) = deny(&version, true, false);
    assert!(!good, "an advisory was found: {calls}");
    // Without a network it says that they were not checked, and that is no failure.
    let (good, calls) = deny(&version, false, false);
    assert!(good && !calls.contains("advisories"), "{calls}");
    let (good, calls) = deny("0.0.1", true, true);
    let install = format!("cargo install cargo-deny --version {version} --locked");
    assert!(!good && calls.contains(&install) && !calls.contains("advisories"), "{calls}");
    let makefile = std::fs::read_to_string(root().join("Makefile")).unwrap();
    assert!(makefile.contains("\tools/deny.sh") || makefile.contains("@tools/deny.sh"), "`make deny` runs it");
    assert!(makefile.lines().any(|line| line.starts_with("check:") && line.contains("deny")), "and `make check` that");
}

fn scripts() -> Vec<PathBuf> {
    let tools = std::fs::read_dir(root().join("tools")).unwrap().map(|entry| entry.unwrap().path());
    let scripts = tools.filter(|path| path.extension().is_some_and(|ending| ending == "sh"));
    scripts.chain([root().join("Makefile"), root().join("deploy/Containerfile")]).collect()
}

#[test]
fn whatever_a_script_brings_from_an_index_is_pinned() {
    let mut wrong = Vec::new();
    for path in scripts() {
        let text = std::fs::read_to_string(&path).unwrap().replace("\\\n", " ");
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#') && !line.starts_with("say ")) {
            let has = |part: &str| line.contains(part);
            let is_wrong = (has("/pip\"") && has(" install ") && !(has("--require-hashes") && has("-r ")))
                || has("pip install")
                || (has("cargo install") && !(has("--version") && has("--locked")))
                || has("npm install")
                || has("@latest")
                || has("curl ")
                || has("wget ");
            if is_wrong {
                wrong.push(format!("{}: {line}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "not pinned:\n{}", wrong.join("\n"));
    let pins = std::fs::read_to_string(root().join("tools/requirements.txt")).unwrap().replace("\\\n", " ");
    let packages: Vec<&str> = pins.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()).collect();
    assert!(packages.len() >= 3, "{pins}");
    for package in packages {
        let hash = package.split("--hash=sha256:").nth(1).and_then(|rest| rest.get(..64)).unwrap_or_default();
        let is_hash = hash.len() == 64 && hash.chars().all(|c| c.is_ascii_hexdigit());
        assert!(package.contains("==") && is_hash, "{package}");
    }
}

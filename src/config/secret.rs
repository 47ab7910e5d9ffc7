//! References to secrets: their place, never their content.
//!
//! Invariant: no error, debug print or serialised form of this file's types contains a secret's text.

use super::SecretSource;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Starts every message about a secret, so that a renderer does not show the source line.
pub(super) const MARK: &str = "a secret is written as a reference";
const HOW: &str = "`{ file: /run/secrets/name }` or `{ env: NAME }`";

impl SecretSource {
    /// The secret's text, without one newline at its end.
    ///
    /// # Errors
    ///
    /// Fails when the file or variable is missing, unreadable or empty; the message names the place, never the content.
    pub fn read(&self) -> Result<String, String> {
        let text = match self {
            SecretSource::File(path) => read_file(path)?,
            SecretSource::Env(name) => std::env::var(name).map_err(|error| match error {
                std::env::VarError::NotPresent => {
                    format!("{self}: not set; set it in the environment of the process that reads it")
                }
                std::env::VarError::NotUnicode(_) => format!("{self}: is not UTF-8"),
            })?,
        };
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.is_empty() {
            return Err(format!("{self}: is empty; an empty secret would give access to everyone"));
        }
        Ok(text.to_owned())
    }

    /// A weakness of the place where it lies, if there is one; for `doctor` and the log at start.
    pub fn careless(&self) -> Option<String> {
        let SecretSource::File(path) = self else { return None };
        careless_mode(path)
    }
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretSource::File(path) => write!(f, "secret file {}", path.display()),
            SecretSource::Env(name) => write!(f, "secret environment variable {name}"),
        }
    }
}

/// Reports a file that every user of the machine may read: it and each folder above it allow it. A file that is a mount
/// of its own is not checked: Docker gives a container its secrets so, with the mode that the file has on the host,
/// where its folder keeps others away.
fn careless_mode(path: &Path) -> Option<String> {
    use std::os::unix::fs::PermissionsExt;
    let mode_of = |path: &Path| fs::metadata(path).map(|meta| meta.permissions().mode()).ok();
    let real = fs::canonicalize(path).ok()?;
    let mode = mode_of(&real)?;
    let reached = || real.ancestors().skip(1).all(|folder| mode_of(folder).is_none_or(|mode| mode & 0o001 != 0));
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    (mode & 0o004 != 0 && reached() && !is_mount(&mounts(), &real)).then(|| {
        format!(
            "{path} is readable by all users (mode {mode:04o}): chmod 600 {path}",
            path = path.display(),
            mode = mode & 0o7777
        )
    })
}

/// Whether something is mounted there: the fifth word of a line of `/proc/self/mountinfo`, which writes a space as `\\040`.
fn is_mount(mounts: &str, path: &Path) -> bool {
    let shown = path.to_string_lossy().replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011");
    mounts.lines().any(|line| line.split(' ').nth(4) == Some(shown.as_str()))
}

fn read_file(path: &Path) -> Result<String, String> {
    let at = path.display();
    let size = fs::metadata(path).map_err(|error| format!("secret file {at}: {error}"))?.len();
    if size > crate::limits::SECRET_BYTES {
        return Err(format!(
            "secret file {at}: {size} bytes is more than {}; is it the right file?",
            crate::limits::SECRET_BYTES
        ));
    }
    // The reader's own error for bytes that are not UTF-8 does not print them.
    fs::read_to_string(path).map_err(|error| format!("secret file {at}: {error}"))
}

impl<'de> de::Deserialize<'de> for SecretSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretVisitor)
    }
}

struct SecretVisitor;

impl SecretVisitor {
    fn literal<T, E: de::Error>() -> Result<T, E> {
        Err(E::custom(format!(
            "{MARK}, {HOW}, never as the text itself: move it out of this file (and change it, if others could read the file)"
        )))
    }
}

impl<'de> Visitor<'de> for SecretVisitor {
    type Value = SecretSource;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HOW)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SecretSource, A::Error> {
        let wrong = || de::Error::custom(format!("{MARK}, {HOW}: exactly one of the two keys"));
        let secret = match map.next_key::<String>()?.as_deref() {
            Some("file") => SecretSource::File(PathBuf::from(map.next_value::<String>()?)),
            Some("env") => SecretSource::Env(map.next_value()?),
            _ => return Err(wrong()),
        };
        if map.next_key::<String>()?.is_some() {
            return Err(wrong());
        }
        Ok(secret)
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<SecretSource, E> {
        SecretVisitor::literal()
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<SecretSource, E> {
        SecretVisitor::literal()
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<SecretSource, E> {
        SecretVisitor::literal()
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<SecretSource, E> {
        SecretVisitor::literal()
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<SecretSource, E> {
        SecretVisitor::literal()
    }

    fn visit_unit<E: de::Error>(self) -> Result<SecretSource, E> {
        Err(E::custom(format!("{MARK}, {HOW}; here is nothing")))
    }
}

/// For the page of settings: one of two references.
#[cfg(test)]
impl schemars::JsonSchema for SecretSource {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let reference = |key: &str| {
            serde_json::json!({
                "type": "object", "properties": { key: { "type": "string" } }, "required": [key],
                "additionalProperties": false,
            })
        };
        schemars::json_schema!({ "title": "secret", "oneOf": [reference("file"), reference("env")] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn file(text: &str, mode: u32) -> (tempfile::TempDir, SecretSource) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (dir, SecretSource::File(path))
    }

    #[test]
    fn one_newline_is_trimmed_and_an_empty_secret_is_refused() {
        assert_eq!(file("abc\n", 0o600).1.read().unwrap(), "abc");
        assert_eq!(file(" abc \n\n", 0o600).1.read().unwrap(), " abc \n");
        let (_dir, empty) = file("\n", 0o600);
        assert!(empty.read().unwrap_err().contains("is empty"));
        let gone = SecretSource::File(PathBuf::from("/nowhere/token"));
        assert!(gone.read().unwrap_err().contains("/nowhere/token"));
    }

    #[test]
    fn a_file_that_everybody_can_read_is_called_careless() {
        let (dir, open) = file("abc", 0o644);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(open.careless().unwrap().contains("chmod 600"));
        // No other user may enter its folder.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(open.careless(), None);
        let (dir, closed) = file("abc", 0o640);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(closed.careless(), None);
    }

    #[test]
    fn a_secret_that_a_container_engine_has_mounted_is_the_hosts_to_guard() {
        let mounts = "812 790 254:0 /srv/night/secrets/metrics-token /run/secrets/metrics-token ro,relatime - ext4 /dev/vda rw\n\
                      813 790 0:64 / /data\\040of\\134us rw - tmpfs tmpfs rw\n";
        let check = |path: &str, expect: bool| assert_eq!(is_mount(mounts, Path::new(path)), expect, "{path}");
        check("/run/secrets/metrics-token", true);
        check("/run/secrets", false);
        check("/srv/night/secrets/metrics-token", false);
        check("/data of\\us", true);
    }
}

//! Who this agent is where there is no Kubernetes: a key made here, and a certificate that the engine gives for it once,
//! against a join token.
//!
//! Invariant: the key never leaves this machine and is readable by its owner alone; a token is sent only to an engine
//! whose authority the token itself names.

use super::http;
use crate::config::AgentConfig;
use crate::limits;
use crate::model::Time;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use x509_parser::pem::parse_x509_pem;

/// The files that joining left on disk.
pub struct IdentityFiles {
    pub(super) key: String,
    pub(super) certificate: String,
    pub(super) ca: String,
    pub(super) renew_at: Time,
    pub(super) ends: Time,
}

/// A request for a certificate; the engine takes the key from the request and the name only from the token or the
/// caller.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    pub token: String,
    pub node: String,
    #[serde(default)]
    pub cluster: String,
    /// A certificate signing request, PEM.
    pub request: String,
}

/// A request for the next certificate, as it is sent to the engine.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewalRequest {
    pub request: String,
}

/// A certificate, and the authority that signed it and the engine's own; both PEM.
#[derive(Serialize, Deserialize)]
pub struct IssuedCertificate {
    pub certificate: String,
    pub ca: String,
}

/// How joining went.
#[derive(Debug)]
pub struct JoinOutcome {
    pub node: String,
    pub ends: String,
}

/// Key, certificate, authority.
pub fn identity_paths(data_dir: &Path) -> [PathBuf; 3] {
    ["agent.key", "agent.pem", "ca.pem"].map(|name| data_dir.join("identity").join(name))
}

impl IdentityFiles {
    /// Reads the identity. None: this agent has never joined.
    ///
    /// # Errors
    ///
    /// Fails when a file cannot be read, or the certificate has no readable validity.
    pub fn load(data_dir: &Path) -> Result<Option<IdentityFiles>, String> {
        let [key, certificate, ca] = identity_paths(data_dir);
        finish(&key, &certificate)?;
        if !certificate.exists() {
            return Ok(None);
        }
        let read = |path: &Path| std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()));
        let (key, certificate, ca) = (read(&key)?, read(&certificate)?, read(&ca)?);
        let (from, to) = validity(&certificate)?;
        // A third of its life is left for engines that are away, and for users to notice.
        let renew_at = Time::from_second(from + (to - from) / 3).unwrap_or(Time::MIN);
        let ends = Time::from_second(to).unwrap_or(Time::MAX);
        Ok(Some(IdentityFiles { key, certificate, ca, renew_at, ends }))
    }
}

/// A crash may have come between the moves of `keep`: the certificate that belongs to the key that is there lies beside.
fn finish(key: &Path, certificate: &Path) -> Result<(), String> {
    let (key_beside, beside) = (beside(key), beside(certificate));
    if key_beside.exists() || !beside.exists() {
        return Ok(());
    }
    std::fs::rename(&beside, certificate).map_err(|error| format!("{}: {error}", beside.display()))
}

/// Where a file is written before it is moved to its place.
fn beside(path: &Path) -> PathBuf {
    path.with_added_extension("new")
}

/// The name under which this machine is known.
pub fn node_name(settings: &AgentConfig) -> String {
    let named = settings.node.clone().or_else(|| std::env::var("NIGHTSHIFT_NODE").ok());
    named
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned())
}

/// A new key, and the request for a certificate of it; both PEM.
pub(super) fn request(node: &str) -> Result<(String, String), String> {
    let wrong = |error: rcgen::Error| format!("a key or request could not be made: {error}");
    let key = rcgen::KeyPair::generate().map_err(wrong)?;
    let mut params = rcgen::CertificateParams::new(Vec::new()).map_err(wrong)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, node);
    let request = params.serialize_request(&key).and_then(|request| request.pem()).map_err(wrong)?;
    Ok((key.serialize_pem(), request))
}

/// Exchanges a join token for a certificate of this node.
///
/// # Errors
///
/// Fails when the token or an authority cannot be read, the engine is not reached or refuses, or the files cannot be
/// written.
pub async fn join(settings: &AgentConfig, token: &str) -> Result<JoinOutcome, String> {
    let ca = authority_of(token)?;
    let mut authorities = vec![ca];
    if let Some(path) = &settings.ca_file {
        authorities
            .push(std::fs::read_to_string(path).map_err(|error| format!("ca_file {}: {error}", path.display()))?);
    }
    let node = node_name(settings);
    let (key, request) = request(&node)?;
    let url = http::engine(settings)?.join("agent/v1/join").map_err(|error| error.to_string())?;
    let body = JoinRequest {
        token: token.to_owned(),
        node: node.clone(),
        cluster: settings.cluster.clone().unwrap_or_default(),
        request,
    };
    let client = http::client(&authorities, None)?;
    let answer = client.post(url).timeout(limits::HTTP_TIMEOUT).json(&body).send().await;
    let answer = answer.map_err(|error| format!("the engine is not reached: {error:?}"))?;
    let granted: IssuedCertificate = http::understand(answer).await.map_err(|error| error.to_string())?;
    keep(&settings.data_dir, &key, &granted)?;
    let (_, to) = validity(&granted.certificate)?;
    Ok(JoinOutcome { node, ends: Time::from_second(to).map_or_else(|_| "?".to_owned(), |time| time.to_string()) })
}

/// `nsj1.<secret>.<the engine's authority>`: the authority travels with the token, so that the first connection is as
/// sure as the later ones.
fn authority_of(token: &str) -> Result<String, String> {
    let wrong = || "this is no join token: make one with `nightshift agents join-token`".to_owned();
    let mut parts = token.trim().split('.');
    let (Some("nsj1"), Some(_), Some(ca), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(wrong());
    };
    let der = URL_SAFE_NO_PAD.decode(ca).map_err(|_| wrong())?;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    Ok(format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"))
}

/// Key first: a certificate without its key would look like an identity and be none.
pub(super) fn keep(data_dir: &Path, key: &str, granted: &IssuedCertificate) -> Result<(), String> {
    let [key_path, certificate, ca] = identity_paths(data_dir);
    let folder = data_dir.join("identity");
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    // Written to temporary files, all of them, then moved: `load` finishes a move that a crash cut short.
    let files = [(&ca, granted.ca.as_str()), (&key_path, key), (&certificate, granted.certificate.as_str())];
    for (path, text) in files {
        write_private(&beside(path), text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    for (path, _) in files {
        let moved = std::fs::rename(beside(path), path);
        moved.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    std::fs::File::open(&folder).and_then(|folder| folder.sync_all()).map_err(|error| error.to_string())
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// From and to, in seconds since 1970.
fn validity(pem: &str) -> Result<(i64, i64), String> {
    let wrong = |what: &dyn std::fmt::Display| format!("this agent's certificate cannot be read ({what}): join again");
    let (_, pem) = parse_x509_pem(pem.as_bytes()).map_err(|error| wrong(&error))?;
    let certificate = pem.parse_x509().map_err(|error| wrong(&error))?;
    let validity = certificate.validity();
    Ok((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate of a key of its own, and the key.
    fn pair(node: &str) -> (String, IssuedCertificate) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, node);
        let pem = params.self_signed(&key).unwrap().pem();
        (key.serialize_pem(), IssuedCertificate { certificate: pem.clone(), ca: pem })
    }

    #[test]
    fn a_crash_in_the_middle_of_a_renewal_leaves_a_key_with_its_certificate() {
        let (old, new) = (pair("old"), pair("new"));
        // Moved: nothing; the authority; the key as well; everything.
        for moved in 0..=3 {
            let dir = tempfile::tempdir().unwrap();
            keep(dir.path(), &old.0, &old.1).unwrap();
            let [key, certificate, ca] = identity_paths(dir.path());
            let files = [(&ca, &new.1.ca), (&key, &new.0), (&certificate, &new.1.certificate)];
            for (path, text) in files {
                write_private(&beside(path), text).unwrap();
            }
            for (path, _) in &files[..moved] {
                std::fs::rename(beside(path), path).unwrap();
            }
            let found = IdentityFiles::load(dir.path()).unwrap().unwrap();
            let expected = if moved < 2 { &old } else { &new };
            assert_eq!((&found.key, &found.certificate), (&expected.0, &expected.1.certificate), "{moved} moved");
        }
    }

    #[test]
    fn a_token_that_names_no_authority_is_refused_before_it_is_sent() {
        for bad in ["", "secret", "nsj1.a", "nsj2.a.b", "nsj1.a.b.c", "nsj1.a.!"] {
            assert!(authority_of(bad).unwrap_err().contains("join-token"), "{bad}");
        }
        assert!(authority_of("nsj1.c2VjcmV0.AQID").unwrap().contains("AQID"));
    }
}

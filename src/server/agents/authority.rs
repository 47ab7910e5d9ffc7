//! Our own small certificate authority for agents: one key, made at the first start.
//!
//! Invariant: the key is readable by its owner alone; a certificate has the node, cluster and family that were granted,
//! and of the request only the public key.

use crate::agent::IssuedCertificate;
use crate::limits;
use crate::model::{AgentName, Time};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// The certificate authority, with its key in memory.
pub struct AgentAuthority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: Vec<u8>,
}

impl AgentAuthority {
    /// Reads key and certificate of `data_dir`, or makes them.
    ///
    /// # Errors
    ///
    /// Fails when a file cannot be read or written, or holds no key or certificate.
    pub fn open_or_create(data_dir: &Path, install: &str, now: Time) -> Result<AgentAuthority, String> {
        let (key_path, pem_path) = (data_dir.join("agents-ca.key"), data_dir.join("agents-ca.pem"));
        if !key_path.exists() {
            let key = KeyPair::generate().map_err(|error| format!("no key for the agents' authority: {error}"))?;
            let pem = own(install, now)?.self_signed(&key).map_err(|error| error.to_string())?.pem();
            write(&pem_path, &pem, 0o644)?;
            // The key last: while it is missing, everything is made anew.
            write(&key_path, &key.serialize_pem(), 0o600)?;
        }
        let read = |path: &Path| std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()));
        let key = KeyPair::from_pem(&read(&key_path)?).map_err(|error| format!("{}: {error}", key_path.display()))?;
        let pem = read(&pem_path)?;
        let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", pem_path.display());
        let (_, parsed) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|error| wrong(&error))?;
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(|error| wrong(&error))?;
        Ok(AgentAuthority { issuer, pem, der: parsed.contents })
    }

    /// The certificate that agents trust, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The certificate that agents trust, DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// A certificate for the key in the request. Other fields of the request are ignored.
    ///
    /// # Errors
    ///
    /// Fails when the request cannot be parsed or its signature does not hold.
    pub fn grant(
        &self,
        request: &str,
        agent: &AgentName,
        family: &str,
        now: Time,
    ) -> Result<IssuedCertificate, String> {
        let wrong = |error: rcgen::Error| format!("the request for a certificate cannot be used: {error}");
        let mut asked = CertificateSigningRequestParams::from_pem(request).map_err(wrong)?;
        let mut params = lasting(now, limits::AGENT_CERTIFICATE)?;
        params.distinguished_name.push(DnType::CommonName, agent.node.as_str());
        params.distinguished_name.push(DnType::OrganizationalUnitName, family);
        if !agent.cluster.is_empty() {
            params.distinguished_name.push(DnType::OrganizationName, agent.cluster.as_str());
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.is_ca = IsCa::ExplicitNoCa;
        asked.params = params;
        let certificate = asked.signed_by(&self.issuer).map_err(wrong)?;
        Ok(IssuedCertificate { certificate: certificate.pem(), ca: self.pem.clone() })
    }

    /// The door's own certificate and key, PEM, for these names and addresses.
    ///
    /// # Errors
    ///
    /// Fails when a name cannot stand in a certificate, or no key can be made.
    pub fn door(&self, names: &[String], now: Time) -> Result<(String, String), String> {
        let wrong = |error: rcgen::Error| format!("cannot create a certificate for the agent listener: {error}");
        let key = KeyPair::generate().map_err(wrong)?;
        let mut params = lasting(now, limits::DOOR_CERTIFICATE)?;
        params.distinguished_name.push(DnType::CommonName, "nightshift");
        params.subject_alt_names = names.iter().map(|name| alternative(name)).collect::<Result<_, _>>()?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let certificate = params.signed_by(&key, &self.issuer).map_err(wrong)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

fn alternative(name: &str) -> Result<SanType, String> {
    if let Ok(address) = name.parse() {
        return Ok(SanType::IpAddress(address));
    }
    name.to_owned().try_into().map(SanType::DnsName).map_err(|_| format!("agents.names: `{name}` is no name"))
}

/// Our own certificate: it signs, and nothing below it may sign again.
fn own(install: &str, now: Time) -> Result<CertificateParams, String> {
    let mut params = lasting(now, limits::AUTHORITY_CERTIFICATE)?;
    params.distinguished_name.push(DnType::CommonName, format!("Nightshift agents of {install}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn lasting(now: Time, life: Duration) -> Result<CertificateParams, String> {
    let mut params = CertificateParams::new(Vec::new()).map_err(|error| error.to_string())?;
    params.distinguished_name = DistinguishedName::new();
    // A clock that is a little behind ours must not refuse it.
    let from = std::time::UNIX_EPOCH + Duration::from_secs(now.as_second().unsigned_abs()) - Duration::from_secs(600);
    params.not_before = from.into();
    params.not_after = (from + life).into();
    Ok(params)
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), String> {
    let place = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut file =
        std::fs::File::options().write(true).create(true).truncate(true).mode(mode).open(path).map_err(place)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_made_once_and_its_key_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let first = AgentAuthority::open_or_create(dir.path(), "lab", Time::now()).unwrap();
        let second = AgentAuthority::open_or_create(dir.path(), "lab", Time::now()).unwrap();
        assert_eq!(first.pem(), second.pem());
        let mode = std::fs::metadata(dir.path().join("agents-ca.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_certificate_names_the_node_that_we_say_and_not_the_one_that_was_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let authority = AgentAuthority::open_or_create(dir.path(), "lab", Time::now()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["evil".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "gpu-9");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let request = params.serialize_request(&key).unwrap().pem().unwrap();
        let granted = authority.grant(&request, &AgentName::new("eu-1", "gpu-1"), "f1", Time::now()).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(granted.certificate.as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        assert_eq!(certificate.subject().to_string(), "CN=gpu-1, OU=f1, O=eu-1");
        assert!(!certificate.is_ca());
        assert!(certificate.subject_alternative_name().unwrap().is_none());
    }
}

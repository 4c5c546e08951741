//! TLS by rustls with ring, verified by the authorities of a file or of the system.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::Arc,
};

use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, pem::PemObject as _},
};

/// The largest file of certificates that is read, in bytes. The system's have some hundred thousand.
const MOST_BYTES: u64 = 16 << 20;

/// The algorithms.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The authorities of a file, or those of the system.
///
/// # Errors
/// When the file cannot be read, or there is no certificate of an authority.
pub fn roots(file: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let (certificates, from) = match file {
        Some(file) => {
            let failed =
                |reason: String| format!("cannot read certificates from {}: {reason}", file.display());
            let bytes = read(file).map_err(|error| failed(error.to_string()))?;
            let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
            (found.map_err(|error| failed(error.to_string()))?, file.display().to_string())
        }
        None => (rustls_native_certs::load_native_certs().certs, "the system".to_owned()),
    };
    // A system may have certificates of forms that nobody can verify by.
    if roots.add_parsable_certificates(certificates).0 == 0 {
        return Err(format!("{from} has no certificate of an authority, so that no server can be verified"));
    }
    Ok(roots)
}

/// What a client of HTTP/1.1 offers to a server, which it verifies.
///
/// # Errors
/// As [`roots`].
pub fn config(file: Option<&Path>) -> Result<ClientConfig, String> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?
        .with_root_certificates(roots(file)?)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Reads a regular file. Nothing waits for a FIFO that is there instead.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let refused = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    if !file.metadata()?.is_file() {
        return refused("it is not a regular file");
    }
    let mut bytes = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES { refused("it is too large for certificates") } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;

    #[test]
    fn a_file_without_certificates_is_refused_and_a_fifo_does_not_wait() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        let error = || roots(Some(&path)).unwrap_err();
        assert!(error().contains("ca.pem: No such file"), "{}", error());
        fs::write(&path, "no certificate at all\n").unwrap();
        assert!(error().contains("ca.pem has no certificate of an authority"), "{}", error());
        let bad = "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n";
        fs::write(&path, bad).unwrap();
        assert!(error().starts_with("cannot read certificates from "), "{}", error());
        fs::remove_file(&path).unwrap();
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert!(error().contains("not a regular file"), "{}", error());
        let error = roots(Some(Path::new("/dev/zero"))).unwrap_err();
        assert!(error.contains("not a regular file"), "{error}");
    }
}

//! `[api] token_file`: a bearer token that every request for figures must carry.
//!
//! The page itself has no figures and needs no token, because a browser cannot send one before it has the page.
//! While the file cannot be used at the start, nothing is served; the caller sees to that.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use anyhow::{Context as _, bail};
use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::Response,
};
use sha2::{Digest as _, Sha256};

use crate::{api::answers::error_answer, files};

/// Largest token file, in bytes.
const MOST_BYTES: u64 = 4096;
/// Shortest token: nobody guesses this many characters.
const FEWEST_CHARACTERS: usize = 16;

/// What requests must carry. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Access(Arc<RwLock<Option<Secret>>>);

/// A token, as its hash. Comparing hashes takes the same time wherever two tokens begin to differ, and no
/// mistake can print the token itself.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Secret {
    file: PathBuf,
    hash: [u8; 32],
}

impl Access {
    /// Takes the token of a file, or none. A token that was in force stays if its file cannot be used.
    ///
    /// # Errors
    /// When the file cannot be read, is open to others, or holds no usable token. If no token of this file was
    /// in force, nothing may be served.
    pub fn follow(&self, file: Option<&Path>) -> Result<(), Unusable> {
        let secret =
            file.map(|file| Ok(Secret { file: file.to_owned(), hash: hash(&read(file)?) })).transpose();
        let mut in_force = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match secret {
            Ok(secret) => {
                *in_force = secret;
                Ok(())
            }
            Err(error) => {
                let kept = in_force.as_ref().is_some_and(|secret| Some(secret.file.as_path()) == file);
                Err(Unusable { kept, error })
            }
        }
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        let in_force = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let Some(secret) = &*in_force else { return true };
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (given.next(), given.next()) else { return false };
        let Some((scheme, token)) = value.to_str().ok().and_then(|value| value.split_once(' ')) else {
            return false;
        };
        let differences =
            hash(token.trim()).iter().zip(secret.hash).fold(0, |sum, (given, wanted)| sum | (given ^ wanted));
        scheme.eq_ignore_ascii_case("bearer") && differences == 0
    }
}

/// Why a token file cannot be used.
#[derive(Debug)]
pub struct Unusable {
    /// Whether the token that was in force stays in force.
    pub kept: bool,
    /// The reason.
    pub error: anyhow::Error,
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

fn read(file: &Path) -> anyhow::Result<String> {
    let what = || format!("cannot use the token file {} ([api] token_file)", file.display());
    let token = files::read_text(file, MOST_BYTES).and_then(|text| {
        private(&fs::metadata(file)?)?;
        Ok(text.trim().to_owned())
    });
    let token = token.with_context(what)?;
    let is_usable = |character: char| character.is_ascii_graphic();
    if token.chars().count() < FEWEST_CHARACTERS || !token.chars().all(is_usable) {
        let reason = anyhow::anyhow!(
            "it must hold one word of at least {FEWEST_CHARACTERS} printable ASCII characters; `openssl rand -hex \
             24` prints one"
        );
        bail!(reason.context(what()));
    }
    Ok(token)
}

/// Refuses a file that other users can read or change.
fn private(file: &fs::Metadata) -> io::Result<()> {
    if file.mode() & 0o027 == 0 {
        return Ok(());
    }
    let reason = format!(
        "its mode is {:04o}, so that others can read or change it; `chmod 640` it",
        file.mode() & 0o7777
    );
    Err(io::Error::new(io::ErrorKind::PermissionDenied, reason))
}

/// Answers only requests that carry the token, if there is one.
pub(super) async fn require(State(access): State<Access>, request: Request, next: Next) -> Response {
    if access.admits(request.headers()) {
        return next.run(request).await;
    }
    let error = "this needs the token of [api] token_file; send it as `Authorization: Bearer TOKEN`";
    let mut answer = error_answer(StatusCode::UNAUTHORIZED, error);
    let challenge = HeaderValue::from_static("Bearer realm=\"trafctl\"");
    answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    answer
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn admits(access: &Access, values: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        access.admits(&headers)
    }

    fn write(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn only_the_token_is_admitted() {
        let dir = tempfile::tempdir().unwrap();
        let (file, access) = (dir.path().join("token"), Access::default());
        assert!(admits(&access, &[]), "without a file");
        write(&file, &format!("{TOKEN}\n"), 0o600);
        access.follow(Some(&file)).unwrap();
        for good in [format!("Bearer {TOKEN}"), format!("bearer  {TOKEN}")] {
            assert!(admits(&access, &[&good]), "{good}");
        }
        for bad in [
            TOKEN.to_owned(),
            "Bearer".to_owned(),
            "Bearer ".to_owned(),
            format!("Basic {TOKEN}"),
            format!("Bearer {}", &TOKEN[1..]),
            format!("Bearer {TOKEN}0"),
            format!("Bearer {}", TOKEN.to_uppercase()),
        ] {
            assert!(!admits(&access, &[&bad]), "{bad}");
        }
        assert!(!admits(&access, &[]));
        let good = format!("Bearer {TOKEN}");
        assert!(!admits(&access, &[&good, &good]), "which of them counts?");
    }

    #[test]
    fn a_reload_takes_another_token_and_a_bad_file_keeps_the_one_in_force() {
        let dir = tempfile::tempdir().unwrap();
        let (file, access) = (dir.path().join("token"), Access::default());
        let fails = |file: &Path| access.follow(Some(file)).unwrap_err();
        let first = fails(&file);
        assert!(!first.kept && format!("{:#}", first.error).contains("([api] token_file): No such file"));
        write(&file, TOKEN, 0o640);
        access.follow(Some(&file)).unwrap();
        for (text, mode, reason) in [
            ("short\n", 0o600, "at least 16"),
            ("", 0o600, "at least 16"),
            ("0123456789 abcdef", 0o600, "one word"),
            ("0123456789abcdef\n0123456789abcdef", 0o600, "one word"),
            ("0123456789abcd\u{e9}f", 0o600, "ASCII"),
            (TOKEN, 0o644, "its mode is 0644"),
            (TOKEN, 0o660, "its mode is 0660"),
            (&"x".repeat(5000), 0o600, "larger than"),
        ] {
            write(&file, text, mode);
            let failed = fails(&file);
            assert!(failed.kept && format!("{:#}", failed.error).contains(reason), "{:#}", failed.error);
            assert!(admits(&access, &[&format!("Bearer {TOKEN}")]) && !admits(&access, &[]));
        }
        let other = dir.path().join("other");
        assert!(!fails(&other).kept, "the token in force is that of another file");
        write(&other, "fedcba9876543210", 0o600);
        access.follow(Some(&other)).unwrap();
        assert!(!admits(&access, &[&format!("Bearer {TOKEN}")]));
        assert!(admits(&access, &["Bearer fedcba9876543210"]));
        access.follow(None).unwrap();
        assert!(admits(&access, &[]));
    }

    #[test]
    fn the_token_is_in_no_output() {
        let dir = tempfile::tempdir().unwrap();
        let (file, access) = (dir.path().join("token"), Access::default());
        write(&file, TOKEN, 0o600);
        access.follow(Some(&file)).unwrap();
        assert!(!format!("{access:?}").contains(TOKEN));
        write(&file, &format!("{TOKEN} x"), 0o600);
        assert!(!format!("{:#}", access.follow(Some(&file)).unwrap_err().error).contains(TOKEN));
    }
}

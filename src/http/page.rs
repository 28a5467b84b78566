//! Owns how a list is cut into pages: the page object, signed cursors, the link to the next page.
//! It must never know what is listed.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use actix_web::HttpRequest;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::ApiError;

const MAC_BYTES: usize = 16;
/// Name of the file in the data folder.
const KEY_FILE: &str = "cursor.key";
const SECRET_BYTES: usize = 32;
/// A cursor holds a sort key and an id; whatever is longer was not made here.
const CURSOR_MAX: usize = 2048;

/// Where this page of a list stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Page {
    /// Hand it back as `cursor=` for the next page; null on the last one.
    pub next_cursor: Option<String>,
    /// Whether there is a next page.
    pub has_more: bool,
    /// The most items a page may hold.
    pub limit: u64,
    /// How many items there are in all; only with `count=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
}

impl Page {
    /// A page that is followed by another one exactly when there is a cursor for it.
    #[must_use]
    pub fn new(limit: u64, next_cursor: Option<String>) -> Self {
        Self { has_more: next_cursor.is_some(), next_cursor, limit, total: None }
    }

    /// Adds how many items there are in all.
    #[must_use]
    pub fn total(mut self, total: u64) -> Self {
        self.total = Some(total);
        self
    }
}

/// Signs cursors, so that a client cannot invent one.
#[derive(Clone)]
pub struct CursorKey([u8; 32]);

impl CursorKey {
    /// A key from secret bytes of any length.
    #[must_use]
    pub fn from_secret(secret: &[u8]) -> Self {
        Self(blake3::derive_key("photon 2026 list cursor", secret))
    }

    /// The key of a data folder, in its file `cursor.key`, so that cursors outlive the process. Where it can
    /// neither be read nor written, a key that lives as long as the process.
    #[must_use]
    pub fn of_folder(folder: &Path) -> Self {
        let path = folder.join(KEY_FILE);
        let kept = match fs::read(&path) {
            Ok(secret) if secret.len() == SECRET_BYTES => return Self::from_secret(&secret),
            Ok(_) => fs::remove_file(&path),
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(fault) => Err(fault),
        };
        let secret = random();
        if let Err(fault) = kept.and_then(|()| store(&path, &secret)) {
            let path = path.display().to_string();
            tracing::warn!(path, %fault, "the key of cursors is not kept: they end with this process");
        }
        Self::from_secret(&secret)
    }

    /// An opaque cursor that holds this text.
    #[must_use]
    pub fn encode(&self, text: &str) -> String {
        let mut bytes = self.mac(text.as_bytes()).to_vec();
        bytes.extend_from_slice(text.as_bytes());
        to_hex(&bytes)
    }

    /// The text of a cursor that this key signed.
    ///
    /// # Errors
    /// 400 `invalid_parameter` for a cursor that is forged, damaged or of another data folder.
    pub fn decode(&self, cursor: &str) -> Result<String, ApiError> {
        self.open(cursor).ok_or_else(|| {
            let detail = "The cursor is not one that this server gave out; begin again without a cursor.";
            ApiError::invalid_parameter("cursor", detail)
        })
    }

    fn open(&self, cursor: &str) -> Option<String> {
        let bytes = from_hex(cursor).filter(|_| cursor.len() <= CURSOR_MAX)?;
        let (mac, text) = bytes.split_at_checked(MAC_BYTES)?;
        let differing = mac.iter().zip(self.mac(text)).fold(0, |seen, (left, right)| seen | (left ^ right));
        // No early exit above: the time must not tell how much of a forged signature was right.
        (differing == 0).then(|| String::from_utf8(text.to_vec()).ok()).flatten()
    }

    fn mac(&self, text: &[u8]) -> [u8; MAC_BYTES] {
        let mut short = [0; MAC_BYTES];
        short.copy_from_slice(&blake3::keyed_hash(&self.0, text).as_bytes()[..MAC_BYTES]);
        short
    }
}

/// The `Link` header's value for the next page: this request's path and parameters with the other cursor.
#[must_use]
pub fn next_link(request: &HttpRequest, cursor: &str) -> String {
    let kept = request.query_string().split('&').filter(|pair| !pair.is_empty());
    let mut pairs: Vec<&str> = kept.filter(|pair| !pair.starts_with("cursor=")).collect();
    let cursor = format!("cursor={cursor}");
    pairs.push(&cursor);
    // A raw '>' would end the link's URI early; every other byte of a request line is harmless here.
    let query = pairs.join("&").replace('<', "%3C").replace('>', "%3E");
    format!("<{}?{query}>; rel=\"next\"", request.path().replace('<', "%3C").replace('>', "%3E"))
}

fn random() -> Vec<u8> {
    // Two v4 ids are 244 bits of the operating system's generator.
    [uuid::Uuid::new_v4().into_bytes(), uuid::Uuid::new_v4().into_bytes()].concat()
}

/// Writes a key that only its owner can read. A file that is cut off by a crash is of another length, and is
/// written anew.
fn store(path: &Path, secret: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(secret)?;
    file.sync_all()
}

fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::error::Code;
    use actix_web::test::TestRequest;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_cursor_gives_back_what_it_holds() {
        let key = CursorKey::from_secret(b"k");
        for text in ["", "op_1", "2026-11-23T01:00:00Z|op_ü"] {
            assert_eq!(key.decode(&key.encode(text)).unwrap(), text);
        }
    }

    #[test]
    fn a_forged_cursor_is_refused() {
        let key = CursorKey::from_secret(b"k");
        let good = key.encode("op_1");
        let foreign = CursorKey::from_secret(b"other").encode("op_1");
        let swapped = good.replace("6f705f31", "6f705f32");
        let upper = good.to_uppercase();
        let long = "0".repeat(CURSOR_MAX + 2);
        for bad in ["", "x", "00", &good[1..], &good[..20], &foreign, &swapped, &upper, &long, "ü"] {
            assert_eq!(key.decode(bad).unwrap_err().code, Code::InvalidParameter, "{bad}");
        }
    }

    #[test]
    fn a_key_is_kept_in_its_folder_for_its_owner_alone() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join(KEY_FILE);
        let cursor = CursorKey::of_folder(folder.path()).encode("op_1");
        assert_eq!(CursorKey::of_folder(folder.path()).decode(&cursor).unwrap(), "op_1");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, b"cut").unwrap();
        let anew = CursorKey::of_folder(folder.path());
        assert!(anew.decode(&cursor).is_err());
        assert_eq!(fs::read(&path).unwrap().len(), SECRET_BYTES);
        let nowhere = folder.path().join("absent");
        assert!(CursorKey::of_folder(&nowhere).decode(&cursor).is_err());
    }

    #[test]
    fn the_next_link_keeps_the_other_parameters() {
        let uri = "/api/v1/operations?status=running&cursor=old&limit=2";
        let request = TestRequest::get().uri(uri).to_http_request();
        let link = "</api/v1/operations?status=running&limit=2&cursor=new>; rel=\"next\"";
        assert_eq!(next_link(&request, "new"), link);
    }

    #[test]
    fn a_page_is_followed_by_another_only_with_a_cursor() {
        assert!(!Page::new(50, None).has_more);
        let page = serde_json::to_value(Page::new(50, Some("c".into())).total(7)).unwrap();
        let expected = serde_json::json!({"nextCursor": "c", "hasMore": true, "limit": 50, "total": 7});
        assert_eq!(page, expected);
    }
}

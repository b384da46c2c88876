//! The URLs of smart HTTP (gitprotocol-http(5)).

use url::Url;

use crate::net::http::without_query;

const INFO_REFS: &str = "/info/refs";
const UPLOAD_PACK: &str = "/git-upload-pack";
const SERVICE: &str = "service=git-upload-pack";

/// Where a repository says what it can do.
pub(super) fn info_refs(repository: &Url) -> Url {
    below(repository, INFO_REFS, Some(SERVICE))
}

/// Where a repository takes requests.
pub(super) fn upload_pack(repository: &Url) -> Url {
    below(repository, UPLOAD_PACK, None)
}

/// The repository whose `info/refs` this is; None for any other URL.
pub(super) fn repository_of(url: &Url) -> Option<Url> {
    let path = url.path().strip_suffix(INFO_REFS)?;
    let mut base = url.clone();
    base.set_path(path);
    let query: Vec<&str> = url
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|part| !part.is_empty() && *part != SERVICE)
        .collect();
    base.set_query((!query.is_empty()).then(|| query.join("&")).as_deref());
    Some(base)
}

/// The repository's address for messages: without its query, which may hold a token.
pub(super) fn shown(url: &Url) -> String {
    let shown = without_query(url);
    [INFO_REFS, UPLOAD_PACK]
        .iter()
        .find_map(|end| shown.strip_suffix(end))
        .unwrap_or(&shown)
        .to_owned()
}

/// `base` with `service` appended to its path, and `query` to its query.
fn below(base: &Url, service: &str, query: Option<&str>) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}{service}", base.path().trim_end_matches('/')));
    let query: Vec<&str> = base.query().into_iter().chain(query).collect();
    url.set_query((!query.is_empty()).then(|| query.join("&")).as_deref());
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_stays_and_the_service_comes_and_goes() {
        for (base, asked) in [
            (
                "https://h/r",
                "https://h/r/info/refs?service=git-upload-pack",
            ),
            (
                "https://h/r/",
                "https://h/r/info/refs?service=git-upload-pack",
            ),
            ("https://h/", "https://h/info/refs?service=git-upload-pack"),
            (
                "https://h/r?a=b",
                "https://h/r/info/refs?a=b&service=git-upload-pack",
            ),
        ] {
            let base = Url::parse(base).unwrap();
            let url = info_refs(&base);
            assert_eq!(url.as_str(), asked);
            let again = repository_of(&url).unwrap();
            assert_eq!(
                again.path().trim_end_matches('/'),
                base.path().trim_end_matches('/')
            );
            assert_eq!(again.query(), base.query());
        }
        assert!(repository_of(&Url::parse("https://h/login").unwrap()).is_none());
    }

    #[test]
    fn an_address_is_shown_without_its_query_and_service() {
        let url = Url::parse("https://h/r.git/info/refs?token=tok3n&service=x").unwrap();
        assert_eq!(shown(&url), "https://h/r.git");
    }
}

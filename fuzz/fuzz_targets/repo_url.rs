//! An address is taken apart without a panic, and printed without its password.
#![no_main]

use git_volume_reloader::base::repo_url::RepoUrl;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(url) = RepoUrl::parse(text) else {
        return;
    };
    let shown = format!("{url} {url:?}");
    if let RepoUrl::Http(http) = &url
        && let Some(password) = &http.password
    {
        // A short one, or one that is a part of the rest, proves nothing.
        let password = password.expose();
        let rest = text.split_once('@').map_or("", |(_, rest)| rest);
        let username = http.username.as_deref().unwrap_or_default();
        if password.len() > 8 && !rest.contains(password) && !username.contains(password) {
            assert!(!shown.contains(password), "{shown}");
        }
    }
    if let RepoUrl::Ssh(ssh) = &url {
        assert!(
            !ssh.host.is_empty() && !ssh.host.starts_with('-'),
            "{ssh:?}"
        );
        assert!(
            !ssh.path.is_empty() && !ssh.path.starts_with('-'),
            "{ssh:?}"
        );
    }
});

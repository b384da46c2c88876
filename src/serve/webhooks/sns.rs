//! AWS SNS, which carries the notifications of CodeCommit.
//!
//! The message's own signature is not checked, because that takes a certificate from a URL in the
//! message. Instead the subscription's endpoint holds the secret as a password
//! (`https://sns:SECRET@host/webhook`), which SNS sends as basic authentication over TLS, and the
//! topic must be one of those that are configured. A subscription is confirmed with a URL that is
//! made from the configured topic, and never with the one in the message.
//! <https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html>

use super::json::{self, Found, Path};
use super::{Event, MAX_PUSHES, Meaning, Push, Reading, Scheme};
use crate::observe::metrics::Provider;
use crate::serve::limits::Head;

/// The longest token that confirms a subscription, in bytes; SNS sends about 300 digits.
const MAX_TOKEN: usize = 1000;

pub(super) fn recognise(head: &Head) -> Option<Scheme> {
    let kind = head.header("x-amz-sns-message-type")?;
    let event = match kind {
        "Notification" | "SubscriptionConfirmation" => Event::InBody,
        _ => Event::Other,
    };
    Some(
        Scheme::new(Provider::Sns, event, read)
            .with_secret(super::basic(head))
            .delivered_as(head, &["x-amz-sns-message-id"]),
    )
}

/// The URL that confirms a subscription to `topic`; `None` if `topic` or `token` is not of their
/// form. Only characters that need no encoding go into it.
pub fn confirmation(topic: &str, token: &str) -> Option<String> {
    let mut parts = topic.split(':');
    let partition = match (parts.next(), parts.next()) {
        (Some("arn"), Some(partition)) => partition,
        _ => return None,
    };
    let (service, region) = (parts.next()?, parts.next()?);
    let plain = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    let rest: Vec<_> = parts.collect();
    let domain = match partition {
        "aws-cn" => "amazonaws.com.cn",
        _ => "amazonaws.com",
    };
    let hostname = region
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let fits = service == "sns"
        && plain(partition)
        && plain(region)
        && hostname
        && rest.len() == 2
        && rest.iter().all(|part| plain(part))
        && plain(token)
        && token.len() <= MAX_TOKEN;
    fits.then(|| {
        format!(
            "https://sns.{region}.{domain}/?Action=ConfirmSubscription&TopicArn={topic}&Token={token}"
        )
    })
}

fn read(body: &[u8]) -> Reading {
    const PATHS: [Path; 4] = [&["Type"], &["TopicArn"], &["Token"], &["Message"]];
    let [mut kind, mut topic, mut token] = [(); 3].map(|()| String::new());
    let mut message = Meaning::Unknown;
    json::read(body, &PATHS, &mut |path, found| {
        if let Found::Text(text) = found {
            match path {
                0 => kind = super::cut(text),
                1 => topic = super::cut(text),
                2 => token = super::cut(text),
                _ => message = read_message(text.as_bytes()),
            }
        }
    });
    let meaning = match kind.as_str() {
        "SubscriptionConfirmation" => Meaning::Subscribe { topic, token },
        "Notification" => Meaning::Notification {
            topic,
            meaning: Box::new(message),
        },
        _ => Meaning::Nothing,
    };
    meaning.into()
}

/// The message of a CodeCommit trigger (`Records`), or of an EventBridge rule (`detail`).
fn read_message(message: &[u8]) -> Meaning {
    const PATHS: [Path; 7] = [
        &["Records", "*", "codecommit", "references", "*"],
        &["Records", "*", "codecommit", "references", "*", "ref"],
        &["Records", "*", "codecommit", "references", "*", "commit"],
        &["Records", "*", "codecommit", "references", "*", "deleted"],
        &["detail", "referenceFullName"],
        &["detail", "commitId"],
        &["detail", "event"],
    ];
    #[derive(Default)]
    struct Reference {
        name: Option<String>,
        commit: Option<String>,
        deleted: bool,
    }
    let mut references: Vec<Reference> = Vec::new();
    let mut detail = Reference::default();
    let mut too_many = false;
    let whole = json::read(message, &PATHS, &mut |path, found| {
        if (path, &found) == (0, &Found::Object) {
            match references.len() < MAX_PUSHES {
                true => references.push(Reference::default()),
                false => too_many = true,
            }
        }
        let reference = match path {
            0..=3 if too_many => None,
            0..=3 => references.last_mut(),
            _ => Some(&mut detail),
        };
        let Some(reference) = reference else {
            return;
        };
        match (path, found) {
            (1 | 4, Found::Text(text)) => reference.name = Some(super::cut(text)),
            (2 | 5, Found::Text(text)) => reference.commit = Some(super::cut(text)),
            (3, Found::Flag(flag)) => reference.deleted = flag,
            (6, Found::Text(text)) => reference.deleted = text == "referenceDeleted",
            _ => {}
        }
    });
    references.push(detail);
    let pushes: Vec<Push> = references
        .iter()
        .filter_map(|reference| {
            let mut push = Push::new(reference.name.as_deref()?, reference.commit.as_deref());
            push.deleted |= reference.deleted;
            Some(push)
        })
        .collect();
    match pushes.is_empty() {
        true => Meaning::Unknown,
        false => Meaning::Pushes {
            pushes,
            all: whole && !too_many,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_confirmation_goes_to_sns_in_the_region_of_the_topic() {
        let topic = "arn:aws:sns:eu-central-1:123456789012:git";
        assert_eq!(
            confirmation(topic, "0aF").as_deref(),
            Some(
                "https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&\
                 TopicArn=arn:aws:sns:eu-central-1:123456789012:git&Token=0aF"
            )
        );
        let china = confirmation("arn:aws-cn:sns:cn-north-1:1:git", "1").unwrap();
        assert!(china.starts_with("https://sns.cn-north-1.amazonaws.com.cn/?"));
    }

    #[test]
    fn what_could_lead_elsewhere_confirms_nothing() {
        let good = "arn:aws:sns:eu-central-1:1:git";
        for (topic, token) in [
            ("arn:aws:sns:evil.example/:1:git", "1"),
            ("arn:aws:sns:evil@h:1:git", "1"),
            ("arn:aws:sns:evil.example:1:git", "1"),
            ("arn:aws:sqs:eu-central-1:1:git", "1"),
            ("arn:aws:sns:eu-central-1:1:git:x", "1"),
            ("arn:aws:sns:eu-central-1:1:a&b", "1"),
            ("", "1"),
            (good, ""),
            (good, "1&Action=Publish"),
            (good, &"1".repeat(MAX_TOKEN + 1)),
        ] {
            assert_eq!(confirmation(topic, token), None, "{topic} {token}");
        }
    }
}

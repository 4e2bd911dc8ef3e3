//! Which conditions an endpoint honours, found out by trying.

use super::server::{ScriptedAnswer, ScriptedServer};
use super::store;
use super::writing::{HELLO, failed};
use crate::s3::Honoured;

#[tokio::test]
async fn the_probe_writes_nothing_where_conditions_are_honoured() {
    for refusal in [ScriptedAnswer::error(404, "NoSuchKey"), failed()] {
        let server = ScriptedServer::scripted(vec![refusal]).await;
        let store = store(&server.url);
        assert_eq!(store.conditional_support().writes(), Honoured::Unknown);
        let support = store.probe_conditional_writes().await.unwrap();
        assert_eq!(support.writes(), Honoured::Yes);
        assert_eq!(support.copy_target, Honoured::No);
        assert_eq!(server.methods(), ["PUT"]);
    }
}

#[tokio::test]
async fn the_probe_removes_what_a_careless_store_made() {
    let server = ScriptedServer::start(|_at, asked| match asked.method.as_str() {
        "DELETE" => ScriptedAnswer::new(204),
        _ => ScriptedAnswer::new(200).header("ETag", HELLO),
    })
    .await;
    let store = store(&server.url);
    let support = store.probe_conditional_writes().await.unwrap();
    assert_eq!(support.writes(), Honoured::No);
    assert_eq!(server.methods(), ["PUT", "PUT", "DELETE"]);
    let keys: std::collections::BTreeSet<_> = server
        .requests()
        .iter()
        .map(|asked| asked.target.split('?').next().unwrap().to_owned())
        .collect();
    assert_eq!(keys.len(), 1, "{keys:?}");
    assert!(
        keys.first().unwrap().starts_with("/bucket/.ackfs-probe-"),
        "{keys:?}"
    );
}

#[tokio::test]
async fn where_writing_is_not_allowed_the_probe_says_unknown() {
    let server = ScriptedServer::scripted(vec![ScriptedAnswer::error(403, "AccessDenied")]).await;
    let support = store(&server.url).probe_conditional_writes().await.unwrap();
    assert_eq!(support.writes(), Honoured::Unknown);
}

/// Begins an upload, answers a copy by `copied`.
async fn copier(copied: ScriptedAnswer) -> ScriptedServer {
    let begun =
        "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>";
    let script = vec![
        ScriptedAnswer::new(200).body(begun),
        copied,
        ScriptedAnswer::new(204),
    ];
    ScriptedServer::scripted(script).await
}

#[tokio::test]
async fn a_store_that_copies_parts_says_that_the_source_is_missing() {
    for (copied, wanted) in [
        (ScriptedAnswer::error(404, "NoSuchKey"), Honoured::Yes),
        (
            ScriptedAnswer::error(412, "PreconditionFailed"),
            Honoured::Yes,
        ),
        (ScriptedAnswer::error(501, "NotImplemented"), Honoured::No),
        (ScriptedAnswer::new(200).header("ETag", HELLO), Honoured::No),
        (
            ScriptedAnswer::new(200)
                .body("<CopyPartResult><ETag>&quot;part&quot;</ETag></CopyPartResult>"),
            Honoured::No,
        ),
    ] {
        let server = copier(copied).await;
        let store = store(&server.url);
        assert_eq!(store.probe_part_copies().await.unwrap(), wanted);
        assert_eq!(server.methods(), ["POST", "PUT", "DELETE"]);
    }
    let server = copier(ScriptedAnswer::error(403, "AccessDenied")).await;
    store(&server.url).probe_part_copies().await.unwrap_err();
}

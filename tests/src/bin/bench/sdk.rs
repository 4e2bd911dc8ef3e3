//! The reference: the same work by the bare SDK, in the shapes that reach this store's limit.
//!
//! One tokio worker beside the caller, plain HTTP, SigV4, checksums as the SDK's defaults are.
//! Reading: 4 ranged GETs of 8 MiB in flight. Writing: multipart, 4 parts of 16 MiB in flight.
//! Small objects: one PutObject each, as many in flight as there are writers. Nothing is kept of
//! what is read.

use ackfs_tests::content::Rng;
use ackfs_tests::minio::USER;
use anyhow::{Context as _, Result};
use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Region};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use aws_smithy_http_client::Builder;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::runtime::Runtime;

use crate::BUCKET;

const GET_LEN: u64 = 8 << 20;
const GETS_MAX: usize = 4;
const PART_LEN: u64 = 16 << 20;
const PARTS_MAX: usize = 4;

/// A client and the runtime it works on.
#[derive(Debug)]
pub(crate) struct Sdk {
    client: Client,
    runtime: Runtime,
}

impl Sdk {
    /// A client of the store at `endpoint`.
    pub(crate) fn new(endpoint: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("no tokio runtime")?;
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .http_client(Builder::new().build_http())
            .credentials_provider(Credentials::new(USER, USER, None, None, "bench"))
            .region(Region::from_static("us-east-1"))
            .endpoint_url(endpoint)
            .force_path_style(true)
            .build();
        Ok(Self {
            client: Client::from_conf(config),
            runtime,
        })
    }

    /// Reads an object of `len` bytes whole.
    pub(crate) fn read(&self, key: &str, len: u64) -> Result<()> {
        self.runtime.block_on(async {
            let offsets = (0..len).step_by(GET_LEN as usize);
            stream::iter(offsets)
                .map(|offset| self.get(key, offset, GET_LEN.min(len - offset)))
                .buffer_unordered(GETS_MAX)
                .try_collect::<Vec<()>>()
                .await?;
            Ok(())
        })
    }

    async fn get(&self, key: &str, offset: u64, len: u64) -> Result<()> {
        let range = format!("bytes={offset}-{}", offset + len - 1);
        let answer = self
            .client
            .get_object()
            .bucket(BUCKET)
            .key(key)
            .range(range)
            .send()
            .await?;
        let mut body = answer.body;
        let mut found = 0;
        while let Some(bytes) = body.try_next().await? {
            found += bytes.len() as u64;
        }
        anyhow::ensure!(found == len, "{found} bytes came, not {len}");
        Ok(())
    }

    /// Writes an object of `len` bytes by multipart upload.
    pub(crate) fn write(&self, key: &str, len: u64, part: &Bytes) -> Result<()> {
        self.runtime.block_on(async {
            let create = self
                .client
                .create_multipart_upload()
                .bucket(BUCKET)
                .key(key);
            let upload = create
                .send()
                .await?
                .upload_id
                .context("an upload has an id")?;
            let offsets = (0..len).step_by(PART_LEN as usize);
            let parts: Vec<CompletedPart> = stream::iter(offsets)
                .map(|offset| {
                    let number = (offset / PART_LEN) as i32 + 1;
                    let body = pieces(part, PART_LEN.min(len - offset));
                    self.part(key, &upload, number, body)
                })
                .buffered(PARTS_MAX)
                .try_collect()
                .await?;
            let parts = CompletedMultipartUpload::builder()
                .set_parts(Some(parts))
                .build();
            self.client
                .complete_multipart_upload()
                .bucket(BUCKET)
                .key(key)
                .upload_id(&upload)
                .multipart_upload(parts)
                .send()
                .await?;
            Ok(())
        })
    }

    async fn part(
        &self,
        key: &str,
        upload: &str,
        number: i32,
        body: Bytes,
    ) -> Result<CompletedPart> {
        let request = self
            .client
            .upload_part()
            .bucket(BUCKET)
            .key(key)
            .upload_id(upload);
        let answer = request
            .part_number(number)
            .body(ByteStream::from(body))
            .send()
            .await?;
        Ok(CompletedPart::builder()
            .part_number(number)
            .set_e_tag(answer.e_tag)
            .set_checksum_crc32(answer.checksum_crc32)
            .build())
    }

    /// Puts `count` objects of these bytes below `prefix`, so many in flight.
    pub(crate) fn put_many(
        &self,
        prefix: &str,
        count: usize,
        in_flight: usize,
        body: &Bytes,
    ) -> Result<()> {
        self.runtime.block_on(async {
            stream::iter(0..count)
                .map(|index| async move {
                    let key = format!("{prefix}{index:06}");
                    let body = ByteStream::from(body.clone());
                    self.client
                        .put_object()
                        .bucket(BUCKET)
                        .key(key)
                        .body(body)
                        .send()
                        .await?;
                    Result::<()>::Ok(())
                })
                .buffer_unordered(in_flight)
                .try_collect::<Vec<()>>()
                .await?;
            Ok(())
        })
    }

    /// Lists all keys below `prefix`; their number.
    pub(crate) fn list(&self, prefix: &str) -> Result<usize> {
        self.runtime.block_on(async {
            let request = self.client.list_objects_v2().bucket(BUCKET).prefix(prefix);
            let mut pages = request.delimiter("/").into_paginator().send();
            let mut count = 0;
            while let Some(page) = pages.next().await {
                count += page?.contents().len();
            }
            Ok(count)
        })
    }

    /// Reads 4 KiB at `reads` random places of an object, one after the other.
    pub(crate) fn read_random(
        &self,
        key: &str,
        len: u64,
        reads: u64,
        random: &mut Rng,
    ) -> Result<()> {
        self.runtime.block_on(async {
            for _ in 0..reads {
                let offset = random.below(len / 4096) * 4096;
                self.get(key, offset, 4096).await?;
            }
            Ok(())
        })
    }
}

/// `len` bytes cut from a part.
fn pieces(part: &Bytes, len: u64) -> Bytes {
    part.slice(..len as usize)
}

//! The few operations that copies need of a store, with time-outs, retries and bounded memory. It never renames.

use std::{path::Path as FilePath, sync::Arc, time::Duration};

use bytes::Bytes;
use common::{Error, ErrorKind, Result, digest::hex, files, interrupt};
use futures_util::TryStreamExt;
use object_store::{
    BackoffConfig, Certificate, ClientOptions, ObjectStore, ObjectStoreExt, PutMode, RetryConfig,
    WriteMultipart,
    aws::{AmazonS3Builder, Checksum},
    azure::MicrosoftAzureBuilder,
    gcp::GoogleCloudStorageBuilder,
    local::LocalFileSystem,
    path::Path,
    prefix::PrefixStore,
};
// Only its features are meant: they choose how object_store's client does TLS.
use reqwest as _;
use sha2::{Digest, Sha256};

use crate::place::{Place, Service};

/// Bytes of one part of an upload: S3 takes none below 5 MiB but the last.
const PART_BYTES: u64 = 8 << 20;
/// Parts of one upload that are on their way at once.
const PARTS_AT_ONCE: usize = 2;
/// S3 takes 10,000 parts: larger files get larger parts.
const MOST_PARTS: u64 = 9_000;
/// A store that says nothing for this long is asked again.
const SILENCE: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(10);
/// How long one request is tried again, in all.
const RETRY_FOR: Duration = Duration::from_secs(120);

/// How often what the client itself does not repeat is asked again: an answer whose body ends early.
const AGAIN: u32 = 4;

/// One object of a list.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub key: String,
    pub bytes: u64,
    /// Seconds since 1970, by the store's clock.
    pub modified: i64,
}

#[derive(Clone)]
pub(crate) struct Storage {
    store: Arc<dyn ObjectStore>,
    shown: String,
}

impl Storage {
    pub(crate) fn open(place: &Place, create: bool) -> Result<Self> {
        // Its client asks rustls for the process's own choice, and has none of its own.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let shown = place.to_string();
        let wrong = |source: object_store::Error| {
            error(&shown, "open the store", &source).with_kind(ErrorKind::Usage)
        };
        let is_plain =
            |endpoint: &Option<String>| endpoint.as_ref().is_some_and(|url| url.starts_with("http://"));
        let retry =
            RetryConfig { backoff: BackoffConfig::default(), max_retries: 10, retry_timeout: RETRY_FOR };
        let store: Arc<dyn ObjectStore> = match place.service {
            Service::File => {
                let root = FilePath::new(&place.prefix);
                if create {
                    files::create_private_dir(root)?;
                } else if !root.exists() {
                    let text = format!("there is no copy repository at {shown}");
                    return Err(Error::new(ErrorKind::NoSuchSnapshot, text));
                }
                return Ok(Self {
                    store: Arc::new(LocalFileSystem::new_with_prefix(root).map_err(wrong)?.with_fsync(true)),
                    shown,
                });
            }
            Service::S3 => {
                let from_environment =
                    std::env::var("AWS_ENDPOINT_URL_S3").or_else(|_| std::env::var("AWS_ENDPOINT_URL"));
                let endpoint = place.endpoint.clone().or_else(|| from_environment.ok());
                let mut builder = AmazonS3Builder::from_env()
                    .with_bucket_name(&place.bucket)
                    .with_checksum_algorithm(Checksum::SHA256)
                    .with_retry(retry)
                    .with_client_options(client(place, is_plain(&endpoint))?);
                if let Some(endpoint) = endpoint {
                    builder = builder.with_endpoint(endpoint);
                }
                if let Some(region) = &place.region {
                    builder = builder.with_region(region);
                }
                Arc::new(builder.build().map_err(wrong)?)
            }
            Service::Gcs => Arc::new(
                GoogleCloudStorageBuilder::from_env()
                    .with_bucket_name(&place.bucket)
                    .with_retry(retry)
                    .with_client_options(client(place, false)?)
                    .build()
                    .map_err(wrong)?,
            ),
            Service::Azure => {
                let mut builder = MicrosoftAzureBuilder::from_env()
                    .with_container_name(&place.bucket)
                    .with_retry(retry)
                    .with_client_options(client(place, is_plain(&place.endpoint))?);
                if let Some(endpoint) = &place.endpoint {
                    builder = builder.with_endpoint(endpoint.clone());
                }
                Arc::new(builder.build().map_err(wrong)?)
            }
        };
        let store: Arc<dyn ObjectStore> = if place.prefix.is_empty() {
            store
        } else {
            Arc::new(PrefixStore::new(store, Path::from(place.prefix.as_str())))
        };
        Ok(Self { store, shown })
    }

    /// A whole small object, or `None` where there is none.
    pub(crate) async fn get(&self, key: &str, most: u64) -> Result<Option<Vec<u8>>> {
        let mut left = AGAIN;
        loop {
            match self.get_once(key, most).await {
                Err(error) if error.kind() == ErrorKind::Failed && left > 0 => left -= 1,
                other => return other,
            }
        }
    }

    async fn get_once(&self, key: &str, most: u64) -> Result<Option<Vec<u8>>> {
        let result = match self.store.get(&Path::from(key)).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            other => other.map_err(|source| self.error(&format!("read {key}"), &source))?,
        };
        if result.meta.size > most {
            return Err(Error::damaged(format!(
                "{key} has {} bytes: that is none of ours",
                result.meta.size
            )));
        }
        let bytes = result.bytes().await.map_err(|source| self.error(&format!("read {key}"), &source))?;
        Ok(Some(bytes.to_vec()))
    }

    /// Reads an object from its beginning to its end. `None` where there is none.
    pub(crate) async fn read(
        &self,
        key: &str,
        mut take: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<Option<()>> {
        let result = match self.store.get(&Path::from(key)).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            other => other.map_err(|source| self.error(&format!("read {key}"), &source))?,
        };
        let mut stream = result.into_stream();
        while let Some(bytes) =
            stream.try_next().await.map_err(|source| self.error(&format!("read {key}"), &source))?
        {
            interrupt::check()?;
            take(&bytes)?;
        }
        Ok(Some(()))
    }

    pub(crate) async fn put(&self, key: &str, bytes: Vec<u8>) -> Result<()> {
        let put = self.store.put(&Path::from(key), bytes.into()).await;
        put.map(|_| ()).map_err(|source| self.error(&format!("write {key}"), &source))
    }

    /// Puts what must not replace anything: false where something is there. A server may not keep to it.
    pub(crate) async fn put_new(&self, key: &str, bytes: Vec<u8>) -> Result<bool> {
        match self.store.put_opts(&Path::from(key), bytes.clone().into(), PutMode::Create.into()).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                Ok(false)
            }
            Err(object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. }) => {
                self.put(key, bytes).await.map(|()| true)
            }
            Err(source) => Err(self.error(&format!("write {key}"), &source)),
        }
    }

    /// Size of an object, or `None` where there is none.
    pub(crate) async fn size(&self, key: &str) -> Result<Option<u64>> {
        match self.store.head(&Path::from(key)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(self.error(&format!("look at {key}"), &source)),
        }
    }

    /// Every object of a folder, in no order. An answer that ends in its middle is asked for again.
    pub(crate) async fn list(&self, folder: &str) -> Result<Vec<Entry>> {
        let mut left = AGAIN;
        loop {
            let listed = self.store.list(Some(&Path::from(folder))).map_ok(|meta| Entry {
                key: meta.location.to_string(),
                bytes: meta.size,
                modified: meta.last_modified.timestamp(),
            });
            match listed.try_collect().await {
                Ok(entries) => return Ok(entries),
                Err(object_store::Error::Generic { .. }) if left > 0 => left -= 1,
                Err(source) => return Err(self.error(&format!("list {folder}"), &source)),
            }
        }
    }

    /// Deletes an object; one that is gone already is no error.
    pub(crate) async fn delete(&self, key: &str) -> Result<()> {
        match self.store.delete(&Path::from(key)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(self.error(&format!("delete {key}"), &source)),
        }
    }

    /// Sends a file: whole, or in parts with bounded memory. What is not the expected content does not become an object.
    pub(crate) async fn send(&self, key: &str, file: &FilePath, bytes: u64, sha256: &str) -> Result<()> {
        let changed = || {
            Error::damaged(format!("checksum mismatch in {}", file.display()))
                .with_hint("Run `backup verify` on the snapshot in its own repository.")
        };
        let mut input = files::open_plain(file).map_err(|source| Error::io("read", file, source))?;
        let mut hash = Sha256::new();
        let mut read = |most: u64| -> Result<Bytes> {
            let mut buffer = Vec::new();
            std::io::Read::read_to_end(&mut std::io::Read::take(&mut input, most), &mut buffer)
                .map_err(|source| Error::io("read", file, source))?;
            hash.update(&buffer);
            Ok(buffer.into())
        };
        if bytes <= PART_BYTES {
            // One byte more, to see whether it ends.
            let content = read(bytes + 1)?;
            if content.len() as u64 != bytes || hex(&hash.finalize()) != sha256 {
                return Err(changed());
            }
            return self.put(key, content.to_vec()).await;
        }
        let part = PART_BYTES.max(bytes / MOST_PARTS);
        let failed = |source: &object_store::Error| self.error(&format!("write {key}"), source);
        let upload = self.store.put_multipart(&Path::from(key)).await.map_err(|source| failed(&source))?;
        let mut upload =
            WriteMultipart::new_with_chunk_size(upload, usize::try_from(part).unwrap_or(usize::MAX));
        let mut moved = 0;
        let sent: Result<()> = async {
            loop {
                interrupt::check()?;
                upload.wait_for_capacity(PARTS_AT_ONCE).await.map_err(|source| failed(&source))?;
                let content = read(part)?;
                if content.is_empty() {
                    return Ok(());
                }
                moved += content.len() as u64;
                upload.put(content);
            }
        }
        .await;
        let sent = sent.and_then(|()| {
            if moved == bytes && hex(&hash.finalize()) == sha256 { Ok(()) } else { Err(changed()) }
        });
        if let Err(error) = sent {
            // Else its parts would lie there, and cost, until somebody looks.
            let _ = upload.abort().await;
            return Err(error);
        }
        match upload.finish().await {
            Ok(_) => Ok(()),
            // The answer was lost, and the second request was told that there is no such upload: no other has this key.
            Err(source) => match self.size(key).await {
                Ok(Some(size)) if size == bytes => Ok(()),
                _ => Err(failed(&source)),
            },
        }
    }

    fn error(&self, doing: &str, source: &object_store::Error) -> Error {
        error(&self.shown, doing, source)
    }
}

/// Work that waits for a store: given up when a signal comes in. What is put already stays, and nothing names it.
pub async fn interruptible<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = tokio::time::sleep(Duration::from_millis(100)) => interrupt::check()?,
        }
    }
}

fn client(place: &Place, is_plain: bool) -> Result<ClientOptions> {
    let mut options = ClientOptions::new()
        .with_allow_http(is_plain)
        .with_http1_only()
        .with_connect_timeout(CONNECT)
        .with_read_timeout(SILENCE)
        .with_timeout_disabled();
    if let Some(ca) = &place.ca {
        let path = FilePath::new(ca);
        let pem = std::fs::read(path).map_err(|source| Error::io("read", path, source))?;
        let certificate = Certificate::from_pem(&pem)
            .map_err(|_| Error::usage(format!("{ca} holds no certificate in PEM form")))?;
        options = options.with_root_certificate(certificate);
    }
    Ok(options)
}

fn error(shown: &str, doing: &str, source: &object_store::Error) -> Error {
    // What stands behind a question mark may be a signature.
    let text = source.to_string();
    let text: Vec<&str> =
        text.split_whitespace().map(|word| word.split_once('?').map_or(word, |(path, _)| path)).collect();
    let message = format!("could not {doing} of {shown}: {}", common::ident::printable(&text.join(" ")));
    match source {
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            Error::refused(message).with_hint(
                "Look at the credentials in the environment, and at what they may do: get, put, list and delete.",
            )
        }
        _ => Error::failed(message).with_hint(
            "Look at the address, the network and the credentials, then run the command again: it goes on where it stopped.",
        ),
    }
}

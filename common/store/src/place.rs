//! Where a copy repository lies: `s3://`, `gs://`, `az://` or `file:///`, read and shown without secrets. *Pure.*

use std::fmt;

use common::{Error, Result};

const CREDENTIALS: &str = "Give credentials in the environment: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, \
                      GOOGLE_APPLICATION_CREDENTIALS, or AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY.";

/// Whether the words of `--repo` are a URL and no path.
pub fn is_url(repo: &std::path::Path) -> bool {
    repo.to_string_lossy().contains("://")
}

/// Which service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    S3,
    Gcs,
    Azure,
    File,
}

/// The address of a copy repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub(crate) service: Service,
    pub(crate) bucket: String,
    pub(crate) prefix: String,
    pub(crate) endpoint: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) ca: Option<String>,
}

impl Place {
    /// Reads a URL.
    ///
    /// # Errors
    /// Usage for anything else, and for a URL with a secret in it, which is not repeated.
    pub fn parse(url: &str) -> Result<Self> {
        let unknown = || {
            Error::usage("a copy repository's URL begins with s3://, gs://, az:// or file:///").with_hint(
                "Write it as s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or file:///path.",
            )
        };
        let (scheme, rest) = url.split_once("://").ok_or_else(unknown)?;
        let service = match scheme {
            "s3" => Service::S3,
            "gs" => Service::Gcs,
            "az" => Service::Azure,
            "file" => Service::File,
            _ => return Err(unknown()),
        };
        if service == Service::File {
            if !rest.starts_with('/') {
                return Err(Error::usage("file:// takes an absolute path")
                    .with_hint("Write file:///path, with three slashes."));
            }
            let prefix = rest.trim_end_matches('/').to_owned();
            return Ok(Self {
                service,
                bucket: String::new(),
                prefix,
                endpoint: None,
                region: None,
                ca: None,
            });
        }
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        if path.contains('@') {
            return Err(Error::usage("the URL of a copy repository holds a user or a password")
                .with_hint(CREDENTIALS));
        }
        let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
        if bucket.is_empty() {
            return Err(unknown());
        }
        let prefix = prefix.trim_matches('/').to_owned();
        if prefix.split('/').any(|part| part == ".." || part == ".") || prefix.contains("//") {
            return Err(Error::usage("the prefix of a copy repository has an empty part, . or ..")
                .with_hint("Write it as s3://bucket/folder/name."));
        }
        let mut place =
            Self { service, bucket: bucket.to_owned(), prefix, endpoint: None, region: None, ca: None };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match key {
                "endpoint" if !value.contains('@') => place.endpoint = Some(value.to_owned()),
                "region" => place.region = Some(value.to_owned()),
                "ca" => place.ca = Some(value.to_owned()),
                _ => {
                    return Err(Error::usage(
                        "the URL of a copy repository takes ?endpoint=, &region= and &ca= only",
                    )
                    .with_hint(CREDENTIALS));
                }
            }
        }
        Ok(place)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.service {
            Service::S3 => "s3",
            Service::Gcs => "gs",
            Service::Azure => "az",
            Service::File => return write!(out, "file://{}", self.prefix),
        };
        write!(out, "{scheme}://{}", self.bucket)?;
        if !self.prefix.is_empty() {
            write!(out, "/{}", self.prefix)?;
        }
        match &self.endpoint {
            Some(endpoint) => write!(out, "?endpoint={endpoint}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_shown_as_they_were_meant() {
        for url in [
            "s3://bucket/a/b",
            "gs://bucket",
            "az://c/p",
            "file:///var/copies",
            "s3://b/p?endpoint=http://127.0.0.1:9",
        ] {
            assert_eq!(Place::parse(url).unwrap().to_string(), url);
        }
    }

    #[test]
    fn a_url_with_a_secret_is_refused_and_not_repeated() {
        for url in [
            "s3://key:hunter2@bucket/p",
            "s3://bucket/p?secret=hunter2",
            "s3://bucket/p?endpoint=http://u:hunter2@h",
            "hunter2://bucket",
        ] {
            let error = Place::parse(url).unwrap_err();
            assert!(!format!("{error} {:?}", error.hint()).contains("hunter2"), "{url}");
        }
        for url in ["s3://", "file://relative", "s3://b/../c", "s3://b/a//c", "bucket/prefix"] {
            assert!(Place::parse(url).is_err(), "{url}");
        }
    }
}

use super::*;

/// Of each kind of refusal one, with what is told about it.
#[test]
fn every_reason_to_refuse_a_certificate_has_its_own_next_step() {
    use rustls::{AlertDescription, CertificateError as Certificate, Error};
    let environment = crate::postgres::Environment::from_pairs("ann", [("X", "y")]);
    let settings = crate::postgres::ConnectionSettings::resolve(
        Some("postgresql://ann@db/shop?sslmode=verify-full&sslrootcert=/etc/ca.pem"),
        &environment,
    )
    .expect("a connection string");
    let name = || rustls::pki_types::ServerName::try_from("db").expect("a name");
    let for_names = |presented: &[&str]| Certificate::NotValidForNameContext {
        expected: name(),
        presented: presented.iter().map(|name| (*name).to_owned()).collect(),
    };
    let refused = [
        Certificate::UnknownIssuer,
        Certificate::Expired,
        Certificate::NotValidYet,
        Certificate::Revoked,
        for_names(&[]),
        for_names(&["other"]),
        Certificate::BadEncoding,
    ];
    let mut told: Vec<String> = Vec::new();
    let others = [Error::AlertReceived(AlertDescription::HandshakeFailure), Error::HandshakeNotComplete];
    for error in refused.into_iter().map(Error::InvalidCertificate).chain(others) {
        // As the caller does it: that is where hints are counted.
        let given = crate::Error::refused(describe(&error)).with_hint(failure_hint(settings.tls(), &error));
        told.push(format!("{}\n  {}", given.message(), given.hint().expect("a hint")));
    }
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn a_certificate_without_a_key_asks_for_the_key() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .expect("it is written");
    let url = format!("postgresql://ann@db/shop?sslmode=require&sslcert={}", file.path().display());
    // Without a home directory there is no usual place for the key.
    let environment = crate::postgres::Environment::from_pairs("ann", [("X", "y")]);
    let settings =
        crate::postgres::ConnectionSettings::resolve(Some(&url), &environment).expect("a connection string");
    let provider = rustls::crypto::ring::default_provider();
    let error = client_identity(settings.tls(), &provider).expect_err("it has no key");
    assert_eq!(error.hint(), Some("Name the key with sslkey."));
}

#[test]
fn keys_open_to_others_are_refused_as_libpq_does() {
    let exposed = |mode, owner| key_is_exposed(mode, owner).is_some();
    assert!(!exposed(0o100_600, 1000));
    assert!(!exposed(0o100_400, 1000));
    assert!(exposed(0o100_640, 1000));
    assert!(exposed(0o100_604, 1000));
    assert!(!exposed(0o100_640, 0));
    assert!(exposed(0o100_644, 0));
    assert!(exposed(0o100_660, 0));
}

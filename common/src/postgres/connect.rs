//! Settings to session.

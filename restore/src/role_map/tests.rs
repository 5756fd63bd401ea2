use super::{
    rights::{DefaultFor, Object, Privilege, Rights},
    statements::{Entries, alterable, keyword, owner_statements, privilege_statements},
    *,
};

#[test]
fn a_role_that_may_not_give_objects_away_is_told_which_one_may() {
    let error = |state: &str| explain(Error::failed("could not map").with_sqlstate(state));
    assert!(error("42501").hint().unwrap().starts_with("Restore as a superuser, or as a member of both"));
    assert_eq!(error("42704").hint(), None);
}

#[test]
fn an_objects_kind_gives_the_word_that_alters_its_owner() {
    for (object, expected) in [
        ("table app.orders", Some(("TABLE", "app.orders"))),
        ("materialized view app.\"table x\"", Some(("MATERIALIZED VIEW", "app.\"table x\""))),
        ("operator class app.c USING btree", Some(("OPERATOR CLASS", "app.c USING btree"))),
        ("operator app.+(integer,integer)", Some(("OPERATOR", "app.+(integer,integer)"))),
        ("aggregate app.a(integer)", Some(("ROUTINE", "app.a(integer)"))),
        ("foreign-data wrapper w", Some(("FOREIGN DATA WRAPPER", "w"))),
        ("extension hstore", None),
        ("large object 7", None),
    ] {
        assert_eq!(alterable(object), expected, "{object}");
    }
    assert_eq!(keyword("large object"), Some("LARGE OBJECT"));
}

fn mapping(from: &str, to: &str) -> RoleMapping {
    RoleMapping { from: from.into(), to: to.into(), is_temporary: false }
}

fn grant(grantor: &str, grantee: &str, privilege: &str) -> Privilege {
    Privilege {
        object: Object { is_inside: true, kind: "table".into(), identity: "app.t".into() },
        column: None,
        owner: "owner".into(),
        keeps_owner: false,
        grantor: grantor.into(),
        grantee: Some(grantee.into()),
        privilege: privilege.into(),
    }
}

#[test]
fn grants_that_rest_on_others_come_after_them_and_in_their_givers_name() {
    let mut rights = Rights::default();
    rights.privileges.insert(grant("owner", "old", "SELECT"), true);
    rights.privileges.insert(grant("old", "aaron", "SELECT"), false);
    let steps = privilege_statements(&rights, &[mapping("old", "new")]).unwrap();
    let sql: Vec<&str> = steps.iter().map(|step| &*step.sql).collect();
    assert_eq!(
        sql,
        [
            "GRANT SELECT ON TABLE app.t TO \"new\" WITH GRANT OPTION",
            "SET LOCAL ROLE \"new\"; GRANT SELECT ON TABLE app.t TO \"aaron\"; RESET ROLE",
            "REVOKE SELECT ON TABLE app.t FROM \"old\" CASCADE",
        ]
    );
}

#[test]
fn what_can_not_be_mapped_is_named_with_the_way_around_it() {
    // A grant whose giver has it from nobody.
    let mut rights = Rights::default();
    rights.privileges.insert(grant("old", "aaron", "SELECT"), false);
    let circle = privilege_statements(&rights, &[mapping("old", "new")]).map(drop).unwrap_err();
    assert_eq!(circle.message(), "the grants on table app.t rest on each other");
    assert_eq!(
        circle.hint(),
        Some("Restore without --map-role for these roles, and change its grants by hand.")
    );
    // A kind of object that no statement is known for.
    let object = Object { is_inside: true, kind: "parcel".into(), identity: "app.p".into() };
    let mut rights = Rights::default();
    rights.owners.insert(object, "old".into());
    let unknown = owner_statements(&rights, &[mapping("old", "new")]).map(drop).unwrap_err();
    assert_eq!(unknown.message(), "the owner of the parcel app.p can't be mapped");
    assert_eq!(unknown.hint(), Some("Restore without --map-role for its owner, and change it by hand."));
    let left = not_exact(&["left: x".to_owned()]);
    assert_eq!(left.message(), "the roles could not be mapped exactly, 1 differences: left: x");
    assert_eq!(
        left.hint(),
        Some("Restore without --map-role for these roles, and change the named objects by hand.")
    );
}

#[test]
fn default_privileges_that_both_roles_have_must_be_the_same() {
    let key = |role: &str| DefaultFor { role: role.into(), schema: None, kind: "r".into() };
    let entry = |grantee: &str| Entries::from([((Some(grantee.into()), "SELECT".into()), false)]);
    let mut rights = Rights::default();
    rights.defaults.insert(key("old"), entry("x"));
    rights.defaults.insert(key("new"), entry("y"));
    assert!(rights.mapped(&[mapping("old", "new")]).unwrap_err().message().contains("default privileges"));
    rights.defaults.insert(key("new"), entry("x"));
    assert_eq!(rights.mapped(&[mapping("old", "new")]).unwrap().defaults.len(), 1);
}

use common::snapshot::toc;

use super::*;

const LISTED: &str = "\
1; 2615 11 SCHEMA - app low
2; 1255 12 FUNCTION app f() low
;	depends on: 1
3; 1247 13 TYPE app mood low
;	depends on: 1
4; 1259 14 TABLE app plain low
;	depends on: 1 3
5; 1259 15 TABLE app t low
;	depends on: 1 2
6; 1255 16 FUNCTION app of_t() low
;	depends on: 5
7; 1259 17 TABLE app u low
;	depends on: 6
8; 1259 18 TABLE app ours postgres
;	depends on: 1 2
9; 1259 19 TABLE app p low
;	depends on: 2
10; 1259 20 TABLE app p1 low
;	depends on: 1
11; 0 0 TABLE ATTACH app p1 low
;	depends on: 9 10
12; 0 0 ACL app TABLE t low
;	depends on: 5
20; 2606 31 CONSTRAINT app plain plain_pkey low
;	depends on: 4
21; 2606 32 CONSTRAINT app plain plain_excl low
;	depends on: 4
22; 1259 33 INDEX app by_f low
;	depends on: 4 2
23; 1259 34 INDEX app by_id low
;	depends on: 5
24; 3381 35 STATISTICS app s low
;	depends on: 4 2
25; 2606 36 FK CONSTRAINT app t t_plain_fk low
;	depends on: 5 4 20
26; 2606 37 FK CONSTRAINT app p p_plain_fk low
;	depends on: 9 4 20
27; 2606 38 CHECK CONSTRAINT app plain checked low
;	depends on: 4 2
28; 2620 39 TRIGGER app t fires low
;	depends on: 5 2
29; 2620 40 TRIGGER app p fires low
;	depends on: 9 2
30; 1247 41 DOMAIN app word low
;	depends on: 1
31; 1247 42 TYPE app pair low
;	depends on: 30
32; 1259 43 VIEW app v low
;	depends on: 31 4
33; 1259 44 INDEX app by_pair low
;	depends on: 31 4
34; 1259 45 VIEW app plain_v low
;	depends on: 5
35; 1247 46 DOMAIN app words low
;	depends on: 31
36; 1259 50 TABLE app empty_tree low
;	depends on: 2
37; 2620 51 TRIGGER app empty_tree fires low
;	depends on: 36 6
38; 1259 52 FOREIGN TABLE app far low
;	depends on: 2
39; 0 0 ACL app FUNCTION f() low
;	depends on: 2
";

fn role(name: &str, is_trusted: bool) -> Role {
    Role { oid: 10, name: name.to_owned(), is_trusted }
}

fn found(roles: &[Role]) -> Owned {
    find_in(LISTED, roles, &(20..30).chain([33, 37]).collect(), &BTreeSet::from([50]), true)
}

fn find_in(
    listed: &str,
    roles: &[Role],
    post_data: &BTreeSet<u32>,
    partitioned: &BTreeSet<u32>,
    may_lend: bool,
) -> Owned {
    let known = Known { post_data, partitioned, exclusions: &BTreeSet::from([21]), may_lend };
    find(&toc::parse(listed), roles, known)
}

#[test]
fn the_owner_of_a_tree_is_lent_what_others_own_in_it_and_without_the_right_to_lend_nobody_is() {
    let listed = "\
1; 1255 12 FUNCTION app f() low
2; 1259 13 TABLE app p low
;	depends on: 1
3; 1259 14 TABLE app p1 other
4; 0 0 TABLE ATTACH app p1 other
;	depends on: 2 3
5; 1259 15 TABLE app o other
6; 1259 16 TABLE app ours postgres
7; 1259 17 TABLE app checked other
;	depends on: 1
8; 0 0 TABLE ATTACH app checked other
;	depends on: 6 7
20; 2620 20 TRIGGER app p fires low
;	depends on: 2 1
21; 2606 21 FK CONSTRAINT app p p_fk low
;	depends on: 2 5
22; 2606 22 FK CONSTRAINT app o o_fk other
;	depends on: 2 5
23; 2620 23 TRIGGER app p1 own other
;	depends on: 3 1
";
    let roles = [role("low", false), role("other", false), role("postgres", true)];
    let makers = |may_lend| {
        let owned = find_in(listed, &roles, &(20..24).collect(), &BTreeSet::from([13, 16]), may_lend);
        let names = owned.makers.iter().map(|(id, role)| format!("{id} {}", role.name));
        (names.collect::<Vec<_>>(), owned.lent)
    };
    let (names, lent) = makers(true);
    assert_eq!(names, ["2 low", "4 low", "7 other", "8 postgres", "20 low", "21 low", "22 other"]);
    let expected = [
        (4, Lending::Partition(3)),
        (8, Lending::Partition(7)),
        (20, Lending::Trees(vec![13])),
        (21, Lending::References(vec![15])),
        (22, Lending::References(vec![13])),
    ];
    assert_eq!(lent, BTreeMap::from(expected));
    let (names, lent) = makers(false);
    assert_eq!((names, lent), (vec!["2 low".to_owned(), "7 other".to_owned()], BTreeMap::new()));
}

#[test]
fn owners_make_what_calls_code_and_nothing_of_trusted_roles_is_made_otherwise() {
    let owned = found(&[role("low", false), role("postgres", true)]);
    assert_eq!(
        owned.makers.keys().copied().collect::<Vec<_>>(),
        [5, 7, 9, 11, 26, 27, 29, 32, 33, 35, 36, 37, 38]
    );
    assert_eq!(owned.late.iter().copied().collect::<Vec<_>>(), [21, 22, 24, 33]);
    let trusted = found(&[role("low", true), role("postgres", true)]);
    assert!(trusted.makers.is_empty(), "{trusted:?}");
    assert!(!may_matter(&toc::parse(LISTED), &[role("low", true)]));
    assert!(may_matter(&toc::parse(LISTED), &[role("low", false)]));
}

#[test]
fn a_batch_comes_after_all_that_it_needs_and_after_what_shuts_functions_and_other_grants_come_last() {
    let owned = found(&[role("low", false), role("postgres", true)]);
    let order: Vec<u32> = (1..=12).chain([39]).collect();
    assert_eq!(
        owned.batches(&order),
        [
            Batch::Ours(vec![1, 2, 3, 4, 8, 10, 39]),
            Batch::Owner(vec![5, 9, 11]),
            Batch::Ours(vec![6]),
            Batch::Owner(vec![7]),
            Batch::Ours(vec![12]),
        ]
    );
    assert_eq!(Owned::default().batches(&order), [Batch::Ours(order.clone())]);
}

#[test]
fn a_table_calls_what_it_or_its_indexes_need() {
    let found = |roles: &[Role]| -> Vec<String> {
        let found = tables_with_code(&toc::parse(LISTED), roles, &BTreeSet::from([21]));
        found.into_iter().map(|found| format!("{} {:?} {}", found.table, found.owner, found.calls)).collect()
    };
    assert_eq!(
        found(&[role("low", false), role("postgres", true)]),
        [
            "table app.plain Some(\"low\") constraint app.plain plain_excl",
            "table app.t Some(\"low\") function app.f()",
            "table app.u Some(\"low\") function app.of_t()",
            "table app.ours None function app.f()",
            "table app.p Some(\"low\") function app.f()",
            "table app.empty_tree Some(\"low\") function app.f()",
        ]
    );
    assert!(found(&[role("low", true)]).is_empty());
}

#[test]
fn the_owner_of_an_entry_is_the_longest_name_that_fits() {
    let roles = [role("low", true), role("not low", false)];
    let entry = &toc::parse("1; 1259 14 TABLE app t not low\n")[0];
    assert_eq!(Roles::new(&roles).untrusted(entry).map(|role| role.name.as_str()), Some("not low"));
}

-- Many tables with foreign keys, indexes and jsonb; :n is the number of orders.
SET synchronous_commit = off;
SELECT setseed(0.42);
CREATE TABLE users (
  id bigint PRIMARY KEY, email text NOT NULL UNIQUE, name text NOT NULL, city text, created_at timestamptz NOT NULL, settings jsonb);
INSERT INTO users SELECT i, 'user' || i || '@example.org', md5(i::text), (ARRAY['Berlin','Lagos','Lima','Osaka'])[1 + i % 4],
  timestamptz '2020-01-01' + i * interval '17 seconds', jsonb_build_object('theme', i % 3, 'tags', ARRAY[i % 7, i % 11])
  FROM generate_series(1, :n / 5) i;
CREATE TABLE orders (
  id bigint PRIMARY KEY, user_id bigint NOT NULL, status text NOT NULL, total numeric(12,2) NOT NULL, placed_at timestamptz NOT NULL, note text);
INSERT INTO orders SELECT i, 1 + (i * 7919::bigint) % (:n / 5), (ARRAY['new','paid','sent','done'])[1 + i % 4], (i % 90000) / 100.0,
  timestamptz '2021-01-01' + i * interval '3 seconds', CASE WHEN i % 9 = 0 THEN repeat('note ' || i, 3) END FROM generate_series(1, :n) i;
CREATE TABLE order_items (
  id bigint PRIMARY KEY, order_id bigint NOT NULL, product int NOT NULL, quantity int NOT NULL, price numeric(10,2) NOT NULL);
INSERT INTO order_items SELECT i, 1 + (i * 104729::bigint) % :n, i % 5000, 1 + i % 5, (i % 20000) / 100.0 FROM generate_series(1, :n * 3) i;
CREATE TABLE events (
  id bigint PRIMARY KEY, user_id bigint NOT NULL, kind text NOT NULL, at timestamptz NOT NULL, payload jsonb NOT NULL);
INSERT INTO events SELECT i, 1 + (i * 31337::bigint) % (:n / 5), 'kind' || i % 20, timestamptz '2022-01-01' + i * interval '2 seconds',
  jsonb_build_object('ip', '10.0.' || i % 250 || '.' || i % 199, 'path', '/p/' || md5(i::text), 'ms', i % 977) FROM generate_series(1, :n) i;
CREATE INDEX ON orders (user_id);
CREATE INDEX ON orders (placed_at);
CREATE INDEX ON order_items (order_id);
CREATE INDEX ON order_items (product);
CREATE INDEX ON events (user_id);
CREATE INDEX ON events (at);
CREATE INDEX ON events USING gin (payload jsonb_path_ops);
ALTER TABLE orders ADD FOREIGN KEY (user_id) REFERENCES users;
ALTER TABLE order_items ADD FOREIGN KEY (order_id) REFERENCES orders;
ALTER TABLE events ADD FOREIGN KEY (user_id) REFERENCES users;
CREATE TABLE tiny (id int PRIMARY KEY, name text);
INSERT INTO tiny SELECT i, 'name ' || i FROM generate_series(1, 100) i;
VACUUM (FREEZE, ANALYZE);

-- A realistic shop: about 500,000 rows in seconds. `\set scale 0.01` before it makes a small one.
\if :{?scale}
\else
\set scale 1
\endif
\set ON_ERROR_STOP 1
BEGIN;

CREATE TYPE order_status AS ENUM ('open', 'paid', 'shipped', 'cancelled');
CREATE DOMAIN cents AS integer CHECK (VALUE >= 0);

CREATE TABLE users (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email text NOT NULL UNIQUE CHECK (email LIKE '%_@_%'),
    name text NOT NULL,
    country char(2) NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE TABLE products (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sku text NOT NULL UNIQUE,
    name text NOT NULL,
    price cents NOT NULL,
    tags text[] NOT NULL DEFAULT '{}',
    photo oid, -- a large object
    CHECK (price > 0)
);
CREATE TABLE orders (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id integer NOT NULL REFERENCES users,
    status order_status NOT NULL DEFAULT 'open',
    placed_at timestamptz NOT NULL,
    shipped_at timestamptz CHECK (shipped_at >= placed_at)
);
CREATE TABLE order_items (
    order_id integer NOT NULL REFERENCES orders ON DELETE CASCADE,
    line integer NOT NULL,
    product_id integer NOT NULL REFERENCES products,
    quantity integer NOT NULL CHECK (quantity > 0),
    price cents NOT NULL,
    total integer GENERATED ALWAYS AS (quantity * price) STORED,
    PRIMARY KEY (order_id, line)
);
CREATE TABLE events (
    id bigint NOT NULL,
    at timestamptz NOT NULL,
    user_id integer NOT NULL REFERENCES users,
    body jsonb NOT NULL,
    PRIMARY KEY (id, at)
) PARTITION BY RANGE (at);
DO $$ BEGIN
    FOR month IN 1..12 LOOP
        EXECUTE format('CREATE TABLE events_2026_%s PARTITION OF events FOR VALUES FROM (%L) TO (%L)', to_char(month, 'FM00'),
            make_date(2026, month, 1)::timestamp AT TIME ZONE 'UTC', (make_date(2026, month, 1) + interval '1 month') AT TIME ZONE 'UTC');
    END LOOP;
END $$;

-- Rows before keys and indexes would be faster still; this order is the one that an application would have made.
INSERT INTO users (email, name, country, created_at)
    SELECT 'user' || i || '@example.com', (ARRAY['Ada', 'Björn', 'Chloé', 'Dmitri', 'Émile', '文'])[1 + i % 6] || ' ' || md5(i::text)::char(8),
        (ARRAY['DE', 'FR', 'US', 'JP', 'BR'])[1 + i % 5], '2025-01-01 00:00+00'::timestamptz + i * interval '7 minutes'
    FROM generate_series(1, greatest(50, (20000 * :scale)::int)) i;
INSERT INTO products (sku, name, price, tags)
    SELECT 'SKU-' || to_char(i, 'FM00000'), 'Product ' || i, 100 + (i * 7919) % 20000,
        ARRAY[(ARRAY['new', 'sale', 'book', 'garden'])[1 + i % 4], 'shelf ' || i % 30]
    FROM generate_series(1, greatest(50, (2000 * :scale)::int)) i;
UPDATE products SET photo = lo_from_bytea(0, decode(repeat(md5('photo'), 4000), 'hex')) WHERE id = 1;
INSERT INTO orders (user_id, status, placed_at, shipped_at)
    SELECT 1 + (i * 7919::bigint) % (SELECT count(*) FROM users), (ARRAY['open', 'paid', 'shipped', 'cancelled'])[1 + i % 4]::order_status,
        at, CASE WHEN i % 4 = 2 THEN at + interval '2 days' END
    FROM generate_series(1, greatest(100, (80000 * :scale)::int)) i, LATERAL (SELECT '2026-01-01 00:00+00'::timestamptz + i * interval '5 minutes' AS at) t;
INSERT INTO order_items (order_id, line, product_id, quantity, price)
    SELECT o.id, line, p.id, 1 + (o.id + line) % 5, p.price
    FROM orders o CROSS JOIN generate_series(1, 1 + o.id % 5) line
    JOIN products p ON p.id = 1 + (o.id * 31 + line * 17) % (SELECT count(*) FROM products);
INSERT INTO events
    SELECT i, '2026-01-01 00:00+00'::timestamptz + i * interval '1 second' * (31000000 / greatest(1000, 160000 * :scale)), 1 + (i * 104729::bigint) % (SELECT count(*) FROM users),
        jsonb_build_object('kind', (ARRAY['view', 'search', 'cart', 'login'])[1 + i % 4], 'ms', (i * 37) % 900, 'tags', ARRAY[i % 7, i % 11])
    FROM generate_series(1, greatest(1000, (160000 * :scale)::int)) i;

CREATE INDEX orders_user ON orders (user_id);
CREATE INDEX order_items_product ON order_items (product_id);
CREATE INDEX events_body ON events USING gin (body jsonb_path_ops);
CREATE MATERIALIZED VIEW sales_by_month AS
    SELECT date_trunc('month', placed_at AT TIME ZONE 'UTC')::date AS month, count(DISTINCT o.id) AS orders, sum(total) AS cents
    FROM orders o JOIN order_items i ON i.order_id = o.id GROUP BY 1;
CREATE UNIQUE INDEX sales_by_month_month ON sales_by_month (month);
CREATE VIEW open_orders AS SELECT o.*, u.email FROM orders o JOIN users u ON u.id = o.user_id WHERE status = 'open';
COMMENT ON TABLE orders IS 'what was bought, by whom; rows are never deleted';
COMMIT;
ANALYZE;

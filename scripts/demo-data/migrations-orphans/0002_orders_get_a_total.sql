ALTER TABLE orders ADD COLUMN total_cents bigint NOT NULL DEFAULT 0 CHECK (total_cents >= 0);
UPDATE orders SET total_cents = sums.total
  FROM (SELECT order_id, sum(total) AS total FROM order_items GROUP BY order_id) AS sums
 WHERE sums.order_id = orders.id;

-- Meant well: the users who never came back. The foreign keys complained, so somebody turned them off; no statement
-- fails, and the orders and events of 25 users now belong to nobody.
ALTER TABLE users DISABLE TRIGGER ALL;
DELETE FROM users WHERE id <= 25;
ALTER TABLE users ENABLE TRIGGER ALL;

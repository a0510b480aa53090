-- What enqueue and the operating functions notify.
listen tidemill

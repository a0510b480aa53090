-- welcome_email: the mail that greets a new user. Values: name, email.

return {
    subject = "Welcome, {{name}}",

    text = [[
Hello {{name}},

your account is ready. Sign in with {{email}} whenever you like.

If it was not you who signed up, reply to this mail and we will remove the
account.
]],

    html = [[
<!doctype html>
<html lang="en">
  <body>
    <p>Hello {{name}},</p>
    <p>your account is ready. Sign in with <b>{{email}}</b> whenever you like.</p>
    <p>If it was not you who signed up, reply to this mail and we will remove the account.</p>
  </body>
</html>
]],
}

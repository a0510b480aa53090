/* libs.h: the modules that handlers require to reach the world. Each is an opener for td_module (runtime/vm/vm.h) that
   pushes the module's table [-0, +1].

   Their functions wait on the fiber that the job runs on: the thread goes on with other jobs. Called where no fiber is
   (while a handler file is loaded) they raise an error that says so. When a fiber is dropped in the middle of a wait,
   what the call held is released: the child process killed, the connection closed. */
#ifndef TD_LIBS_H
#define TD_LIBS_H

#include <lua.h>

/* These two push nothing: they change the state's io and os when it is made. */
int td_io_open(lua_State *L); /* files on fiber-aware streams */
int td_os_open(lua_State *L); /* execute, remove, rename, tmpname */

/* td_os_result pushes what os.execute and the close of io.popen's files return [-0, +3]. May raise. Returns 3. */
int td_os_result(lua_State *L, int status, int signal);

int td_tidemill_open(lua_State *L); /* tidemill: null, array, is_array, wait */
int td_http_open(lua_State *L);     /* tidemill.http */
int td_mail_open(lua_State *L);     /* tidemill.mail */
int td_process_open(lua_State *L);  /* tidemill.process */
/* td_pg_session returns the transaction that is open in L's state, NULL for none. May raise. */
struct td_session *td_pg_session(lua_State *L);

int td_pg_open(lua_State *L); /* tidemill.pg; needs td_connections_join (runtime/store/connections.h) on the thread */

#endif

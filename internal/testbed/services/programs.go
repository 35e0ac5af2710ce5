//go:build linux

package services

// The programs and configurations of the services. Each says WORKING when it has begun with a slow
// request and answers "whole" when it has ended.

const slowPython = `
import sys, time
def app(environ, respond):
    if environ["PATH_INFO"] == "/slow":
        print("WORKING", file=sys.stderr, flush=True)
        time.sleep(1)
    respond("200 OK", [("Content-Type", "text/plain")])
    return [b"whole"]
`

const slowNode = `
const http = require('http')
const server = http.createServer((request, response) => {
  if (request.url !== '/slow') return response.end('whole')
  console.log('WORKING')
  setTimeout(() => response.end('whole'), 1000)
}).listen(PORT, '127.0.0.1')
process.on('SIGTERM', () => server.close(() => process.exit(0)))
`

const slowJava = `
import com.sun.net.httpserver.*;
import java.net.InetSocketAddress;
import java.util.concurrent.*;
public class Slow {
    public static void main(String[] args) throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", PORT), 0);
        ExecutorService pool = Executors.newCachedThreadPool();
        server.setExecutor(pool);
        server.createContext("/", exchange -> {
            if (exchange.getRequestURI().getPath().equals("/slow")) {
                System.out.println("WORKING");
                try { Thread.sleep(1000); } catch (InterruptedException e) { return; }
            }
            exchange.sendResponseHeaders(200, 5);
            exchange.getResponseBody().write("whole".getBytes());
            exchange.close();
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> server.stop(20)));
        server.start();
    }
}
`

const slowCelery = `
import sys, time
from celery import Celery
app = Celery("tasks", broker="filesystem://")
app.conf.update(worker_hijack_root_logger=False, broker_transport_options={
    "data_folder_in": "DIR/queue", "data_folder_out": "DIR/queue", "store_processed": False})
@app.task
def slow():
    print("WORKING", file=sys.__stderr__, flush=True)
    time.sleep(1)
    print("TASK DONE", file=sys.__stderr__, flush=True)
`

const slowLua = `
core.register_service("answer", "http", function(applet)
  if applet.path == "/slow" then
    io.stderr:write("WORKING\n")
    core.msleep(1000)
  end
  applet:set_status(200)
  applet:add_header("content-length", "5")
  applet:start_response()
  applet:send("whole")
end)
`

const slowHAProxy = `
global
  lua-load DIR/slow.lua
defaults
  mode http
  timeout client 60s
  timeout connect 60s
  timeout server 60s
frontend web
  bind 127.0.0.1:PORT
  http-request use-service lua.answer
`

const slowApache = `
ServerName shop.example
ServerRoot DIR
PidFile DIR/httpd.pid
DefaultRuntimeDir DIR
ErrorLog /proc/self/fd/2
Listen 127.0.0.1:PORT
LoadModule mpm_prefork_module /usr/lib/apache2/modules/mod_mpm_prefork.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule alias_module /usr/lib/apache2/modules/mod_alias.so
LoadModule cgi_module /usr/lib/apache2/modules/mod_cgi.so
User www-data
Group www-data
ScriptAliasMatch "^/(ready|slow)$" "DIR/$1.cgi"
<Directory "DIR">
  Require all granted
</Directory>
`

//! The snippets. Each is whole as it is printed: the tests install them so, and connect through the real servers.
//!
//! None sets an idle limit: the server's own one stays in force, and wootz pings below it.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a proxy connects to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Upstream {
    /// Host and port; `sender` is where the proxy's connections come from, where that is known.
    Tcp { authority: String, sender: Option<IpAddr>, wire: Wire },
    /// A Unix socket.
    Unix { path: PathBuf, wire: Wire },
}

impl Upstream {
    /// How TLS is spoken to it, where it is.
    pub(super) fn tls(&self) -> Option<&Tls> {
        match self {
            Self::Tcp { wire: Wire::Tls(tls), .. } => Some(tls),
            Self::Tcp { .. } | Self::Unix { .. } => None,
        }
    }
}

/// What is spoken below HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wire {
    Plain,
    /// No TLS, on an address that was chosen for that from among others.
    PlainBesideTls,
    Tls(Tls),
}

/// Whether the proxy looks at the certificate that it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tls {
    Unchecked,
    /// It is for this name, and by one of the authorities in this file. `None`: by a public one.
    Checked {
        name: String,
        authorities: Option<PathBuf>,
    },
}

/// How wootz is told who the browser is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Teller {
    /// By `X-Forwarded-For`.
    Field,
    /// By a PROXY header.
    ProxyProtocol,
}

/// Whose configuration it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proxy {
    Apache(Form),
    Nginx,
    Caddy,
    Haproxy,
}

/// Ways of Apache to the same end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A rule that takes handshakes only: fits into a virtual host and into `.htaccess`, and leaves every page alone.
    Rewrite,
    /// mod_proxy_http, which upgrades since 2.4.47.
    ProxyPass,
    /// mod_proxy_wstunnel, for what is older.
    Tunnel,
}

/// A snippet, and what it depends on.
#[derive(Debug)]
pub(super) struct Snippet<'a> {
    pub(super) proxy: Proxy,
    pub(super) upstream: Upstream,
    pub(super) teller: Teller,
    /// `listen.path` without a final slash: empty for everything. Plain characters only.
    pub(super) path: &'a str,
    /// `limits.ping_interval`.
    pub(super) ping_interval: Duration,
}

impl fmt::Display for Snippet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.proxy {
            Proxy::Apache(form) => self.apache(form, f),
            Proxy::Nginx => self.nginx(f),
            Proxy::Caddy => self.caddy(f),
            Proxy::Haproxy => self.haproxy(f),
        }
    }
}

impl Snippet<'_> {
    fn apache(&self, form: Form, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let modules = match form {
            Form::Rewrite => "rewrite proxy proxy_http proxy_wstunnel",
            Form::ProxyPass => "proxy proxy_http",
            Form::Tunnel => "proxy proxy_wstunnel",
        };
        let ssl = if self.tls().is_some() { " ssl" } else { "" };
        let place = match (form, self.tls()) {
            (Form::Rewrite, None) => {
                "\
# Inside <VirtualHost> of the site (Debian: /etc/apache2/sites-available/000-default.conf), or in .htaccess of its
# document root where AllowOverride permits FileInfo. It takes WebSocket handshakes only; pages stay as they are."
            }
            (Form::Rewrite, Some(_)) => {
                "\
# Inside <VirtualHost> of the site (Debian: /etc/apache2/sites-available/000-default.conf); no .htaccess may switch on
# TLS to wootz. It takes WebSocket handshakes only; pages stay as they are."
            }
            (Form::ProxyPass, _) => {
                "\
# Inside <VirtualHost> of the site (Debian: /etc/apache2/sites-available/000-default.conf),
# before other ProxyPass lines.
# Apache 2.4.47 or newer."
            }
            (Form::Tunnel, _) => {
                "\
# Inside <VirtualHost> of the site (Debian: /etc/apache2/sites-available/000-default.conf),
# before other ProxyPass lines.
# For Apache before 2.4.47; newer ones have --for proxypass."
            }
        };
        writeln!(f, "# wootz behind Apache.\n{place}")?;
        if self.path.is_empty() && form != Form::Rewrite {
            writeln!(
                f,
                "# listen.path is \"/\", so the whole virtual host goes to wootz, pages too: give it a host of its own."
            )?;
        }
        writeln!(f, "# Modules: a2enmod {modules}{ssl} && systemctl restart apache2")?;
        match form {
            Form::Rewrite | Form::ProxyPass => {
                let setting = "Timeout or ProxyTimeout, the longer one: 300 s on Debian, else 60 s";
                self.idle(f, "Apache", setting, Some(60))?;
            }
            // It waits without end, unless a newer Apache with mod_proxy_http does its work.
            Form::Tunnel => self.idle(f, "mod_proxy_wstunnel", "", None)?,
        }
        self.sender(f, "Apache")?;
        self.wire(f)?;
        let (ws, http) = if self.tls().is_some() { ("wss", "https") } else { ("ws", "http") };
        self.apache_tls(if form == Form::ProxyPass { http } else { ws }, f)?;
        let path = self.path;
        match form {
            Form::Rewrite => {
                // The request line, because the rule sees what DirectoryIndex made of the path, and sees it decoded.
                let below = match path {
                    "" => "/[^ ?]*".to_owned(),
                    path => format!("{}(?:/[^ ?]*)?", for_a_pattern(path)),
                };
                writeln!(f, "RewriteEngine On\nRewriteCond %{{HTTP:Upgrade}} =websocket [NC]")?;
                writeln!(f, "RewriteCond %{{THE_REQUEST}} \"^GET ({below})[ ?]\"")?;
                writeln!(f, "RewriteRule ^ {}%1 [P,NE]", self.apache_url(ws))
            }
            Form::ProxyPass => {
                writeln!(f, "ProxyPass \"{path}/\" \"{}{path}/\" upgrade=websocket", self.apache_url(http))?;
                self.apache_exact(f, http, " upgrade=websocket")
            }
            Form::Tunnel => {
                writeln!(f, "ProxyPass \"{path}/\" \"{}{path}/\"", self.apache_url(ws))?;
                self.apache_exact(f, ws, "")
            }
        }
    }

    /// How Apache speaks TLS to wootz, and to nobody else.
    fn apache_tls(&self, scheme: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(tls) = self.tls() else { return Ok(()) };
        writeln!(f, "<Proxy \"{}/*\">\n    SSLProxyEngine On", self.apache_url(scheme))?;
        match tls {
            // Name and dates it would compare also of a certificate that it does not verify.
            Tls::Unchecked => f.write_str("    SSLProxyCheckPeerName Off\n    SSLProxyCheckPeerExpire Off\n")?,
            // The name is that of the URL.
            Tls::Checked { authorities, .. } => {
                let file = authorities_file(authorities.as_deref());
                writeln!(f, "    SSLProxyVerify require\n    SSLProxyVerifyDepth 5")?;
                writeln!(f, "    SSLProxyCACertificateFile {file}")?;
            }
        }
        f.write_str("</Proxy>\n")
    }

    /// The path itself, which `ProxyPass "/path/"` leaves out.
    fn apache_exact(&self, f: &mut fmt::Formatter<'_>, scheme: &str, parameters: &str) -> fmt::Result {
        match self.path {
            "" => Ok(()),
            path => writeln!(f, "ProxyPass \"{path}\" \"{}{path}\"{parameters}", self.apache_url(scheme)),
        }
    }

    fn apache_url(&self, scheme: &str) -> String {
        match &self.upstream {
            Upstream::Tcp { authority, .. } => format!("{scheme}://{authority}"),
            Upstream::Unix { path, .. } => format!("unix:{}|{scheme}://localhost", path.display()),
        }
    }

    fn nginx(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "\
# wootz behind nginx.
# Inside server { } of the site (Debian: /etc/nginx/sites-available/default); then: nginx -t && systemctl reload nginx
# Modules: none besides nginx's own.
",
        )?;
        self.idle(f, "nginx", "proxy_read_timeout: 60 s", Some(60))?;
        self.sender(f, "nginx")?;
        self.wire(f)?;
        let scheme = if self.tls().is_some() { "https" } else { "http" };
        let url = match &self.upstream {
            Upstream::Tcp { authority, .. } => format!("{scheme}://{authority}"),
            Upstream::Unix { path, .. } => format!("{scheme}://unix:{}", path.display()),
        };
        match self.path {
            // `return` is the one thing that is safe within `if`.
            "" => f.write_str(
                "\
# listen.path is \"/\": WebSocket handshakes go to wootz whatever their path; pages stay as they are.
error_page 418 = @wootz;
if ($http_upgrade ~* ^websocket$) { return 418; }
location @wootz {
",
            )?,
            path => writeln!(f, "location ~ ^{}(/|$) {{", for_a_pattern(path))?,
        }
        writeln!(f, "    proxy_pass {url};")?;
        if let Some(Tls::Checked { name, authorities }) = self.tls() {
            write!(
                f,
                "    proxy_ssl_name {name};
    proxy_ssl_server_name on;
    proxy_ssl_verify on;
    proxy_ssl_verify_depth 5;
    proxy_ssl_trusted_certificate {};
",
                authorities_file(authorities.as_deref())
            )?;
        }
        f.write_str(
            "    proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection upgrade;
    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
}
",
        )
    }

    fn caddy(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "\
# wootz behind Caddy.
# Inside the braces of the site (Debian: /etc/caddy/Caddyfile); then: systemctl reload caddy
# Modules: none besides Caddy's own.
",
        )?;
        self.idle(f, "Caddy", "", None)?;
        self.sender(f, "Caddy")?;
        self.wire(f)?;
        f.write_str("@wootz {\n    header_regexp Upgrade (?i)^websocket$\n")?;
        if !self.path.is_empty() {
            writeln!(f, "    path {0} {0}/*", self.path)?;
        }
        let address = match &self.upstream {
            Upstream::Tcp { authority, .. } => authority.clone(),
            Upstream::Unix { path, .. } => format!("unix/{}", path.display()),
        };
        write!(f, "}}\nhandle @wootz {{\n    reverse_proxy {address}")?;
        if let Some(tls) = self.tls() {
            // It would take HTTP/2 where that is offered, on which it upgrades nothing.
            f.write_str(" {\n        transport http {\n            versions 1.1\n            tls\n")?;
            match tls {
                Tls::Unchecked => f.write_str("            tls_insecure_skip_verify\n")?,
                Tls::Checked { name, authorities } => {
                    writeln!(f, "            tls_server_name {name}")?;
                    if let Some(file) = authorities {
                        writeln!(f, "            tls_trusted_ca_certs {}", file.display())?;
                    }
                }
            }
            f.write_str("        }\n    }")?;
        }
        f.write_str("\n}\n")
    }

    fn haproxy(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "\
# wootz behind HAProxy.
# Directly below the last line of your frontend section (Debian: /etc/haproxy/haproxy.cfg): the first lines are its own.
# Then: haproxy -c -f /etc/haproxy/haproxy.cfg && systemctl reload haproxy
# Modules: none besides HAProxy's own.
",
        )?;
        let setting = "timeout tunnel, else timeout client and timeout server: 50 s on Debian";
        self.idle(f, "HAProxy", setting, Some(50))?;
        self.sender(f, "HAProxy")?;
        self.wire(f)?;
        match self.path {
            "" => writeln!(f, "    use_backend wootz if {{ hdr(Upgrade) -i websocket }}")?,
            path => writeln!(
                f,
                "    acl is_wootz path {path}\n    acl is_wootz path_beg {path}/\n    \
                 use_backend wootz if is_wootz {{ hdr(Upgrade) -i websocket }}",
            )?,
        }
        let address = match &self.upstream {
            Upstream::Tcp { authority, .. } => authority.clone(),
            Upstream::Unix { path, .. } => format!("unix@{}", path.display()),
        };
        let tls = match self.tls() {
            None => String::new(),
            Some(Tls::Unchecked) => " ssl verify none".to_owned(),
            Some(Tls::Checked { name, authorities }) => {
                let file = authorities_file(authorities.as_deref());
                format!(" ssl verify required ca-file {file} verifyhost {name} sni str({name})")
            }
        };
        let header = match self.teller {
            Teller::Field => "",
            Teller::ProxyProtocol => " send-proxy-v2",
        };
        write!(
            f,
            "
backend wootz
    mode http
    option forwardfor
    http-request set-header X-Forwarded-Proto https if {{ ssl_fc }}
    server wootz {address}{header}{tls}
"
        )
    }

    fn tls(&self) -> Option<&Tls> {
        self.upstream.tls()
    }

    /// How long the proxy keeps a silent connection, and whether wootz pings in time.
    fn idle(&self, f: &mut fmt::Formatter<'_>, name: &str, setting: &str, limit_s: Option<u64>) -> fmt::Result {
        let interval = self.ping_interval;
        let pings = match limit_s {
            Some(_) if interval.is_zero() => "limits.ping_interval is 0, so idle ones are cut".to_owned(),
            Some(limit) if interval >= Duration::from_secs(limit) => {
                format!("limits.ping_interval, {}, has to be below that", seconds(interval))
            }
            Some(_) => format!("wootz pings every {}, so idle ones stay", seconds(interval)),
            None => return writeln!(f, "# Idle connections: {name} has no limit for them."),
        };
        writeln!(f, "# Idle connections: {name} cuts silent ones ({setting});\n# {pings}.")
    }

    /// Whom wootz has to believe about the browser's address.
    fn sender(&self, f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
        let told = match &self.upstream {
            Upstream::Tcp { sender: Some(address), .. } => {
                format!("needs listen.trusted_proxies = [\"{address}\"] in wootz.toml")
            }
            Upstream::Tcp { sender: None, .. } => {
                format!("needs listen.trusted_proxies in wootz.toml, with the address that {name} connects from")
            }
            Upstream::Unix { .. } => "comes with every connection of a Unix socket, whose peer is trusted".to_owned(),
        };
        writeln!(f, "# The browser's address {told}.")?;
        match self.teller {
            Teller::Field => Ok(()),
            Teller::ProxyProtocol => f.write_str(
                "# It is told by a PROXY header, which send-proxy-v2 writes (listen.proxy_protocol = true).\n",
            ),
        }
    }

    /// Why TLS is spoken, or is not although it could be.
    fn wire(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Upstream::Tcp { wire, .. } | Upstream::Unix { wire, .. }) = &self.upstream;
        let leaves_the_machine = matches!(self.upstream, Upstream::Tcp { sender: None, .. });
        match wire {
            Wire::Plain => Ok(()),
            Wire::PlainBesideTls if leaves_the_machine => f.write_str(
                "# wootz speaks TLS too; its address without TLS is taken. Have nobody between who could listen.\n",
            ),
            Wire::PlainBesideTls => f.write_str(
                "# wootz speaks TLS too; its address without TLS is taken, since nothing leaves this machine.\n",
            ),
            Wire::Tls(Tls::Unchecked) => {
                let how = match self.proxy {
                    Proxy::Apache(_) => "--to NAME:PORT",
                    Proxy::Nginx | Proxy::Caddy | Proxy::Haproxy => "--tls-name NAME",
                };
                writeln!(
                    f,
                    "# wootz speaks TLS there. Nothing leaves this machine, so its certificate is not checked ({how} does so).\n\
                     # With plain:127.0.0.1:8889 in listen.address there would be no need of TLS."
                )
            }
            Wire::Tls(Tls::Checked { name, authorities }) => {
                let file = authorities_file(authorities.as_deref());
                writeln!(
                    f,
                    "# wootz speaks TLS there; its certificate has to be for {name}, by an authority in {file}."
                )
            }
        }
    }
}

/// The public authorities of this machine, in one file.
const PUBLIC_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

fn authorities_file(named: Option<&Path>) -> String {
    named.map_or_else(|| PUBLIC_AUTHORITIES.to_owned(), |file| file.display().to_string())
}

/// A plain path as a regular expression: of its characters only the dot is special.
fn for_a_pattern(path: &str) -> String {
    path.replace('.', r"\.")
}

fn seconds(duration: Duration) -> String {
    if duration.subsec_millis() == 0 {
        format!("{} s", duration.as_secs())
    } else {
        format!("{} ms", duration.as_millis())
    }
}

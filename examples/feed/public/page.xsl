<?xml version="1.0" encoding="UTF-8"?>
<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform">
  <xsl:output method="html" encoding="UTF-8" doctype-system="about:legacy-compat" />
  <xsl:template match="/"><xsl:apply-templates /></xsl:template>
  <xsl:template name="page">
    <xsl:param name="title" />
    <xsl:param name="about" />
    <xsl:param name="items" />
    <html lang="en">
      <head>
        <title><xsl:value-of select="$title" /></title>
        <style>body { font: 1.1rem/1.6 serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem; color: #2f4858 }
h1 { border-bottom: 3px solid #c0392b } time { color: #777; margin-left: .5rem } a { color: #c0392b }</style>
      </head>
      <body>
        <h1><xsl:value-of select="$title" /></h1>
        <p><xsl:value-of select="$about" /></p>
        <ul><xsl:copy-of select="$items" /></ul>
      </body>
    </html>
  </xsl:template>
</xsl:stylesheet>

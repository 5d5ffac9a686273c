<?xml version="1.0" encoding="UTF-8"?>
<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform"
  xmlns:atom="http://www.w3.org/2005/Atom" exclude-result-prefixes="atom">
  <xsl:import href="page.xsl" />
  <xsl:template match="/rss/channel">
    <xsl:call-template name="page">
      <xsl:with-param name="title" select="title" />
      <xsl:with-param name="about" select="description" />
      <xsl:with-param name="items">
        <xsl:for-each select="item">
          <li><a href="{link}"><xsl:value-of select="title" /></a>
            <time><xsl:value-of select="substring(pubDate, 6, 11)" /></time>
            <p><xsl:value-of select="description" /></p></li>
        </xsl:for-each>
      </xsl:with-param>
    </xsl:call-template>
  </xsl:template>
  <xsl:template match="/atom:feed">
    <xsl:call-template name="page">
      <xsl:with-param name="title" select="atom:title" />
      <xsl:with-param name="about" select="atom:subtitle" />
      <xsl:with-param name="items">
        <xsl:for-each select="atom:entry">
          <xsl:sort select="atom:updated" order="descending" />
          <li><a href="{atom:link/@href}"><xsl:value-of select="atom:title" /></a>
            <time><xsl:value-of select="substring(atom:updated, 1, 10)" /></time>
            <p><xsl:value-of select="atom:summary" /></p></li>
        </xsl:for-each>
      </xsl:with-param>
    </xsl:call-template>
  </xsl:template>
</xsl:stylesheet>
